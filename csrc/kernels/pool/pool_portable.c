/* pool_portable.c -- maximum and mean over a window.
 *
 * max  target[y][x][c] = maximum of the taps inside the map; a NaN among them wins.
 *      Packed signs (BI_FLAG_BITS): the AND of the words, since bit 1 is -1; where a bit of
 *      weight, [words(in_c)] u64 or NULL, is 1, the OR, which is the minimum.
 * avg  target[y][x][c] = (sum of the taps inside the map, row by row) / divisor; the divisor is the
 *      whole window (BI_FLAG_COUNT_PADDING) or the taps inside the map.
 *
 * source  [in_h][in_w][in_c] f32 (or words);  target [out_h][out_w][in_c] f32 (or words)
 * rows    out_h
 */
#include <string.h>

#include "../kernel.h"

typedef struct {
    int32_t y_first, y_end, x_first, x_end;    /* map pixels inside the window; never empty */
} area;

static area window_at(const bi_step *s, int32_t oy, int32_t ox)
{
    int32_t y = oy * s->stride_h - s->pad_top, x = ox * s->stride_w - s->pad_left;
    area a = {
        .y_first = y > 0 ? y : 0,
        .y_end = y + s->kernel_h < s->in_h ? y + s->kernel_h : s->in_h,
        .x_first = x > 0 ? x : 0,
        .x_end = x + s->kernel_w < s->in_w ? x + s->kernel_w : s->in_w,
    };
    return a;
}

static void max_floats(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c;
    float *target = (float *)at->target + (size_t)begin * (size_t)s->out_w * channels;
    for (int32_t oy = begin; oy < end; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++, target += channels) {
            area a = window_at(s, oy, ox);
            for (size_t c = 0; c < channels; c++)
                target[c] = -__builtin_inff();
            for (int32_t y = a.y_first; y < a.y_end; y++)
                for (int32_t x = a.x_first; x < a.x_end; x++) {
                    const float *source = (const float *)at->source +
                                          ((size_t)y * (size_t)s->in_w + (size_t)x) * channels;
                    for (size_t c = 0; c < channels; c++)
                        target[c] = target[c] >= source[c] || target[c] != target[c] ? target[c]
                                                                                     : source[c];
                }
        }
}

static void max_signs(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t words = bi_words(s->in_c);
    const uint64_t *flips = s->weight;    /* packed, or NULL */
    uint64_t *target = (uint64_t *)at->target + (size_t)begin * (size_t)s->out_w * words;
    for (int32_t oy = begin; oy < end; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++, target += words) {
            area a = window_at(s, oy, ox);
            memset(target, 0xff, words * 8);
            for (int32_t y = a.y_first; y < a.y_end; y++)
                for (int32_t x = a.x_first; x < a.x_end; x++) {
                    const uint64_t *source = (const uint64_t *)at->source +
                                             ((size_t)y * (size_t)s->in_w + (size_t)x) * words;
                    for (size_t k = 0; k < words; k++)
                        target[k] &= flips != NULL ? source[k] ^ flips[k] : source[k];
                }
            if (flips != NULL)
                for (size_t k = 0; k < words; k++)
                    target[k] ^= flips[k];
        }
}

static void max_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    if (s->flags & BI_FLAG_BITS)
        max_signs(s, at, begin, end);
    else
        max_floats(s, at, begin, end);
}

static void avg_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c;
    float *target = (float *)at->target + (size_t)begin * (size_t)s->out_w * channels;
    for (int32_t oy = begin; oy < end; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++, target += channels) {
            area a = window_at(s, oy, ox);
            int32_t inside = (a.y_end - a.y_first) * (a.x_end - a.x_first);
            int32_t whole = s->kernel_h * s->kernel_w;
            float divisor = (float)(s->flags & BI_FLAG_COUNT_PADDING ? whole : inside);
            memset(target, 0, channels * sizeof *target);
            for (int32_t y = a.y_first; y < a.y_end; y++)
                for (int32_t x = a.x_first; x < a.x_end; x++) {
                    const float *source = (const float *)at->source +
                                          ((size_t)y * (size_t)s->in_w + (size_t)x) * channels;
                    for (size_t c = 0; c < channels; c++)
                        target[c] += source[c];
                }
            for (size_t c = 0; c < channels; c++)
                target[c] /= divisor;
        }
}

const bi_kernel bi_max_pool2d_portable = {.run = max_run};
const bi_kernel bi_avg_pool2d_portable = {.run = avg_run};
