/* bconv2d.h -- convolution of signs with signs.
 *
 *   dot[y][x][o]    = sum over taps (ky, kx) and channels c of sign(source) * sign(weight)
 *   target[y][x][o] = the epilogue of dot (../epilogue.h)
 *
 * A tap outside the map holds pad_value; 0 is exact, because such taps are not counted:
 *
 *   dot = valid_taps * channels - 2 * mismatches + pad_value * (sum of the signs of the other taps)
 *
 * source  [in_h][in_w][words(in_c)] u64, packed along in_c, stray bits 0
 * weight  canonical: [out_c][kernel_h][kernel_w][words(in_c / groups)] u64, stray bits 0
 * beta    [out_h][out_w][groups] f32, or NULL;  alpha, bias [out_c] f32, or NULL
 * residual [out_h][out_w][out_c] f32, or NULL; with residual_gap floats behind each pixel
 * target  [out_h][out_w][out_c] f32, with target_gap others behind each pixel that are left as they
 *         are, or [out_h][out_w][words(out_c)] u64; all else is written.  It may be the residual
 * scratch the source with each group aligned to words, where in_c / groups is no multiple of 64
 * rows    out_h
 *
 * K = kernel_h * kernel_w * in_c / groups <= 2^24, so dot is exact in float32.
 */
#ifndef BITINFER_BCONV2D_H
#define BITINFER_BCONV2D_H

#include <string.h>

#include "../epilogue.h"

typedef struct {
    int32_t channels;        /* of one group */
    size_t words;            /* of one group */
    size_t pixel_words;      /* of one pixel of the aligned source */
    int32_t taps;
    int32_t outputs;         /* of one group */
} bi_bconv2d_shape;

static inline bi_bconv2d_shape bi_bconv2d_shape_of(const bi_step *s)
{
    bi_bconv2d_shape shape;
    shape.channels = s->in_c / s->groups;
    shape.words = bi_words(shape.channels);
    shape.pixel_words = shape.words * (size_t)s->groups;
    shape.taps = s->kernel_h * s->kernel_w;
    shape.outputs = s->out_c / s->groups;
    return shape;
}

/* Groups that do not begin on a word are moved to words of their own. */
static inline int bi_bconv2d_realigns(const bi_step *s)
{
    return s->groups > 1 && (s->in_c / s->groups) % 64 != 0;
}

size_t bi_bconv2d_scratch_bytes(const bi_step *s);
void bi_bconv2d_stage(const bi_step *s, const bi_pointers *at);

static inline const uint64_t *bi_bconv2d_source(const bi_step *s, const bi_pointers *at)
{
    return bi_bconv2d_realigns(s) ? at->scratch : at->source;
}

/* The taps of one output pixel that lie inside the map. */
typedef struct {
    int32_t ky_first, ky_end, kx_first, kx_end;
    int32_t y, x;    /* map position of tap (0, 0); may be negative */
} bi_bconv2d_taps;

static inline bi_bconv2d_taps bi_bconv2d_taps_at(const bi_step *s, int32_t oy, int32_t ox)
{
    bi_bconv2d_taps t;
    bi_valid_taps(oy, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h, &t.ky_first,
                  &t.ky_end);
    bi_valid_taps(ox, s->stride_w, s->pad_left, s->dilation_w, s->kernel_w, s->in_w, &t.kx_first,
                  &t.kx_end);
    t.y = oy * s->stride_h - s->pad_top;
    t.x = ox * s->stride_w - s->pad_left;
    return t;
}

/* Number the classes along one axis: pixels with the same range of taps inside the map.  Returns how many
 * there are; `classes` may be NULL. */
int32_t bi_border_classes(int32_t out, int32_t stride, int32_t pad, int32_t dilation, int32_t taps,
                          int32_t extent, uint16_t *classes);

/* The same along both axes: the classes of rows and of columns of the outputs. */
void bi_bconv2d_border_classes(const bi_step *s, uint16_t *row_class, uint16_t *column_class);

/* Whether element number i is the first of its class. */
static inline int bi_begins_class(const uint16_t *classes, int32_t i)
{
    return i == 0 || classes[i] != classes[i - 1];
}

/* The sum of the signs of one output's taps (canonical) that lie outside the map at pixel (y, x). */
int32_t bi_bconv2d_signs_outside(const bi_step *s, const uint64_t *taps, int32_t y, int32_t x);

/* Write what output `o` ends with: its scales, [vector][bi_scale][16] f32, and, into zeros, whether its
 * sign is flipped, [word] u64. */
void bi_bconv2d_pack_ends(const bi_step *s, int32_t o, float *scales, uint64_t *flips);

/* Of n >= 0 and p, odd or even: c - 2 * p - 4 * n is below the threshold of output o if p / 2 + n is
 * greater than this. */
int64_t bi_limit_of_odd(const bi_step *s, int32_t o, int32_t c, int32_t odd);

/* Sums of the signs of each output's taps, [out_c][taps] i32: kept behind the packed weight when
 * padding is -1 or +1. */
static inline size_t bi_bconv2d_tap_sum_bytes(const bi_step *s)
{
    return s->pad_value != 0 ? (size_t)s->out_c * (size_t)(s->kernel_h * s->kernel_w) * 4 : 0;
}

void bi_bconv2d_pack_tap_sums(const bi_step *s, const uint64_t *canonical, int32_t *tap_sums);

/* What the taps outside the map add to the dot product of output `o`. */
static inline int32_t bi_bconv2d_padding_sum(const bi_step *s, const int32_t *tap_sums,
                                             const bi_bconv2d_taps *t, int32_t o)
{
    if (t->ky_first == 0 && t->ky_end == s->kernel_h && t->kx_first == 0 &&
        t->kx_end == s->kernel_w)
        return 0;
    int32_t sum = 0;
    const int32_t *row = tap_sums + (size_t)o * (size_t)(s->kernel_h * s->kernel_w);
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++)
            if (ky < t->ky_first || ky >= t->ky_end || kx < t->kx_first || kx >= t->kx_end)
                sum += row[ky * s->kernel_w + kx];
    return s->pad_value * sum;
}

/* Write `count` integer results, the outputs from `o` on, of the pixel number `pixel`. */
static inline void bi_bconv2d_finish(const bi_step *s, const bi_pointers *at, size_t pixel,
                                     int32_t group, int32_t o, int32_t count, const int32_t *dot)
{
    bi_output_pixel p = bi_output_at(s, at, pixel, pixel * (size_t)s->groups + (size_t)group);
    bi_finish(s, &p, o, count, dot);
}

#endif
