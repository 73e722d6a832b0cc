/* beta_map_portable.c -- XNOR-Net's activation scale (Rastegari et al. 2016, section 3.2).
 *
 *   mean[y][x][g]   = (sum over the channels c of group g of |source[y][x][c]|) / channels
 *   target[y][x][g] = (sum over the taps inside the map of mean) / (kernel_h * kernel_w)
 *
 * source  [in_h][in_w][in_c] f32;  target [out_h][out_w][groups] f32
 * scratch the means, [in_h][in_w][groups] f32
 * rows    out_h
 */
#include "../kernel.h"

static size_t scratch_bytes(const bi_step *s)
{
    return (size_t)s->in_h * (size_t)s->in_w * (size_t)s->groups * sizeof(float);
}

static float mean_magnitude(const float *x, int32_t count)
{
    float part[8] = {0}, sum = 0;    /* eight sums, so that the compiler may use vectors */
    int32_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int32_t lane = 0; lane < 8; lane++)
            part[lane] += __builtin_fabsf(x[i + lane]);
    for (; i < count; i++)
        sum += __builtin_fabsf(x[i]);
    for (int32_t lane = 0; lane < 8; lane++)
        sum += part[lane];
    return sum / (float)count;
}

static void stage(const bi_step *s, const bi_pointers *at)
{
    int32_t channels = s->in_c / s->groups;
    size_t count = (size_t)s->in_h * (size_t)s->in_w * (size_t)s->groups;
    const float *source = at->source;
    float *mean = at->scratch;
    for (size_t i = 0; i < count; i++, source += channels)
        mean[i] = mean_magnitude(source, channels);
}

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t groups = (size_t)s->groups;
    float *target = (float *)at->target + (size_t)begin * (size_t)s->out_w * groups;
    for (int32_t oy = begin; oy < end; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++, target += groups) {
            int32_t ky, ky_end, kx_first, kx_end;
            bi_valid_taps(oy, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h, &ky,
                          &ky_end);
            bi_valid_taps(ox, s->stride_w, s->pad_left, s->dilation_w, s->kernel_w, s->in_w,
                          &kx_first, &kx_end);
            for (size_t g = 0; g < groups; g++)
                target[g] = 0;
            for (; ky < ky_end; ky++)
                for (int32_t kx = kx_first; kx < kx_end; kx++) {
                    size_t y = (size_t)(oy * s->stride_h - s->pad_top + ky * s->dilation_h);
                    size_t x = (size_t)(ox * s->stride_w - s->pad_left + kx * s->dilation_w);
                    const float *mean =
                        (const float *)at->scratch + (y * (size_t)s->in_w + x) * groups;
                    for (size_t g = 0; g < groups; g++)
                        target[g] += mean[g];
                }
            for (size_t g = 0; g < groups; g++)
                target[g] /= (float)(s->kernel_h * s->kernel_w);
        }
}

const bi_kernel bi_beta_map_portable = {.scratch_bytes = scratch_bytes, .stage = stage, .run = run};
