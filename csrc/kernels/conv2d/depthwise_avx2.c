/* depthwise_avx2.c -- depthwise convolution of floats: 16 channels of 4 pixels at a time, or of 3x3
 * windows 8 channels of many, read where the map is; taps outside it are skipped.
 *
 * Packed weight: [block of 16 channels][tap][16] f32, missing channels 0.
 */
#if defined(__x86_64__)
#include "../unroll.h"
#include "finish_avx2.h"

enum {
    AT_ONCE = 4,
    TOGETHER = 16, /* of 3x3: both halves of the channels, while the map is in the first cache */
    NEIGHBOURS = 32,
};

static int depthwise_takes(const bi_step *s)
{
    return s->groups > 1 && s->groups == s->in_c && s->groups == s->out_c &&
           !bi_conv2d_is_integer(s) && s->table == NULL;
}

static size_t depthwise_weight_bytes(const bi_step *s)
{
    return ((size_t)s->out_c + 15) / 16 * bi_conv2d_taps(s) * 64;
}

static void depthwise_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    size_t taps = bi_conv2d_taps(s);
    memset(packed, 0, depthwise_weight_bytes(s));
    for (size_t c = 0; c < (size_t)s->out_c; c++)
        for (size_t tap = 0; tap < taps; tap++)
            ((float *)packed)[(c / 16 * taps + tap) * 16 + c % 16] =
                bi_conv2d_weight_at(s, canonical, c, tap, 0);
}

/* What is the same for all pixels of a row and a block of channels. */
typedef struct {
    const bi_step *step;
    const float *source, *weight; /* of the block */
    int32_t oy, ky_first, ky_end;
    __m256i mask_low, mask_high; /* the channels that are there */
} row;

/* Eight channels; `whole`: all of them are there. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256 read(const float *from,
                                                                        __m256i mask, int whole)
{
    return whole ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, mask);
}

/* `count` pixels (a constant where this is inlined) from column ox on, which all have the taps
 * from kx_first up to kx_end. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
compute(const row *r, int32_t ox, int32_t kx_first, int32_t kx_end, int count, int whole, float *sums)
{
    const bi_step *s = r->step;
    ptrdiff_t channels = s->in_c, map_row = (ptrdiff_t)s->in_w * channels;
    ptrdiff_t next = s->stride_w * channels;
    __m256 low[AT_ONCE], high[AT_ONCE];
    for (int i = 0; i < count; i++)
        low[i] = high[i] = _mm256_setzero_ps();
    ptrdiff_t y = r->oy * s->stride_h - s->pad_top, x = ox * s->stride_w - s->pad_left;
    for (ptrdiff_t ky = r->ky_first; ky < r->ky_end; ky++)
        for (ptrdiff_t kx = kx_first; kx < kx_end; kx++) {
            const float *w = r->weight + (ky * s->kernel_w + kx) * 16;
            const float *from = r->source + (y + ky * s->dilation_h) * map_row +
                                (x + kx * s->dilation_w) * channels;
            __m256 w_low = _mm256_load_ps(w), w_high = _mm256_load_ps(w + 8);
            for (int i = 0; i < count; i++, from += next) {
                low[i] = _mm256_fmadd_ps(read(from, r->mask_low, whole), w_low, low[i]);
                high[i] = _mm256_fmadd_ps(read(from + 8, r->mask_high, whole), w_high, high[i]);
            }
        }
    for (int i = 0; i < count; i++) {
        _mm256_storeu_ps(sums + i * 16, low[i]);
        _mm256_storeu_ps(sums + i * 16 + 8, high[i]);
    }
}

/* Eight channels of `count` pixels whose windows of 3x3 neighbours lie inside the map; the first
 * window begins at `from`.  The weights stay in registers.  Sums are chains in the order of compute(). */
BI_TARGET_avx2 static void compute_3x3(const bi_step *s, const float *from, const float *weight,
                                       int32_t count, float *sums)
{
    ptrdiff_t channels = s->in_c, map_row = (ptrdiff_t)s->in_w * channels;
    ptrdiff_t next = s->stride_w * channels;
    const float *below = from + map_row, *lowest = below + map_row;
    __m256 w[9];
    BI_UNROLL
    for (int tap = 0; tap < 9; tap++)
        w[tap] = _mm256_load_ps(weight + 16 * tap);
    for (; count > 0; count--, from += next, below += next, lowest += next, sums += 16) {
        __m256 y = _mm256_setzero_ps();
        BI_UNROLL
        for (int kx = 0; kx < 3; kx++)
            y = _mm256_fmadd_ps(_mm256_loadu_ps(from + kx * channels), w[kx], y);
        BI_UNROLL
        for (int kx = 0; kx < 3; kx++)
            y = _mm256_fmadd_ps(_mm256_loadu_ps(below + kx * channels), w[3 + kx], y);
        BI_UNROLL
        for (int kx = 0; kx < 3; kx++)
            y = _mm256_fmadd_ps(_mm256_loadu_ps(lowest + kx * channels), w[6 + kx], y);
        _mm256_storeu_ps(sums, y);
    }
}

/* The pixels of a row from column ox up to `end`. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
compute_columns(const row *r, int32_t ox, int32_t end, int whole, float *sums)
{
    const bi_step *s = r->step;
    int32_t reach = (s->kernel_w - 1) * s->dilation_w;
    int is_3x3 = whole && s->kernel_h == 3 && s->kernel_w == 3 && s->dilation_h == 1 &&
                 s->dilation_w == 1 && r->ky_end - r->ky_first == 3;
    while (ox < end) {
        int32_t kx_first, kx_end, count = 1, last = ox + AT_ONCE - 1;
        bi_valid_taps(ox, s->stride_w, s->pad_left, s->dilation_w, s->kernel_w, s->in_w, &kx_first,
                      &kx_end);
        if (is_3x3 && kx_first == 0 && kx_end == 3) {
            int32_t inside = (s->in_w - 3 + s->pad_left) / s->stride_w + 1 - ox;
            ptrdiff_t pixel = (ptrdiff_t)(r->oy * s->stride_h - s->pad_top) * s->in_w +
                              ox * s->stride_w - s->pad_left;
            count = TOGETHER < end - ox ? TOGETHER : end - ox;
            count = inside < count ? inside : count;
            compute_3x3(s, r->source + pixel * s->in_c, r->weight, count, sums);
            compute_3x3(s, r->source + pixel * s->in_c + 8, r->weight + 8, count, sums + 8);
        } else if (kx_first == 0 && last < end &&
                   last * s->stride_w - s->pad_left + reach < s->in_w) {
            count = AT_ONCE;
            compute(r, ox, 0, s->kernel_w, AT_ONCE, whole, sums);
        } else {
            compute(r, ox, kx_first, kx_end, 1, whole, sums);
        }
        ox += count;
        sums += count * 16;
    }
}

/* Some neighbouring pixels at a time, all blocks of channels of them: that reads the map in the order
 * of its memory. */
BI_TARGET_avx2 static void depthwise_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    row r = {.step = s};
    float sums[NEIGHBOURS * 16];
    __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (r.oy = begin; r.oy < end; r.oy++) {
        bi_valid_taps(r.oy, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h,
                      &r.ky_first, &r.ky_end);
        for (int32_t ox = 0; ox < s->out_w; ox += NEIGHBOURS)
            for (int32_t c = 0; c < s->out_c; c += 16) {
                int32_t last = ox + NEIGHBOURS < s->out_w ? ox + NEIGHBOURS : s->out_w;
                int32_t count = s->out_c - c < 16 ? s->out_c - c : 16;
                r.source = (const float *)at->source + c;
                r.weight = (const float *)s->weight + (size_t)c * bi_conv2d_taps(s);
                r.mask_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
                r.mask_high = _mm256_cmpgt_epi32(_mm256_set1_epi32(count - 8), lanes);
                if (count == 16)
                    compute_columns(&r, ox, last, 1, sums);
                else
                    compute_columns(&r, ox, last, 0, sums);
                bi_plane_sums all = {
                    .step = s, .at = at,
                    .first = (size_t)r.oy * (size_t)s->out_w + (size_t)ox,
                    .count = (size_t)(last - ox),
                    .output = c, .outputs = count, .sums = sums, .apart = 16,
                };
                bi_finish_pixels_conv2d_avx2(&all);
            }
    }
}

const bi_kernel bi_conv2d_depthwise_avx2 = {
    .takes = depthwise_takes,
    .block = 16,
    .weight_bytes = depthwise_weight_bytes,
    .pack_weight = depthwise_pack_weight,
    .run = depthwise_run,
};
#endif
