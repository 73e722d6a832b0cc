/* conv2d.h -- convolution and dense layer of floats or of small integers.
 *
 *   sum[y][x][o]    = sum over ky, kx, c of source * weight; a tap outside the map adds 0
 *   target[y][x][o] = the epilogue of the sum (../epilogue.h)
 *
 * Two kinds (bi_conv2d_is_integer):
 *
 * Floats.  The source is f32, or u8 with a table: pixel byte p of channel c is table[p][c].  The
 *   sums are float32, in any order and with or without fused multiply-add: they differ from kernel
 *   to kernel by rounding, but not with the rows or threads that a step is split into.  The
 *   epilogue is rounded operation by operation.
 *
 * Integers.  The source is u8 or i8 without a table, the weight is not f32.  The sums are exact
 *   (the binder sees to it that |sum| < 2^31), so every kernel gives the same.  With `offset`,
 *   which is subtracted from every pixel inside the map, the bias is that of bi_conv2d_pack_shifts;
 *   floor then does not occur.
 *
 * source  [in_h][in_w][in_c] f32, u8 (BI_FLAG_U8) or i8 (BI_FLAG_I8)
 * weight  canonical: [out_c][kernel_h][kernel_w][in_c / groups], finite, of weight_type;
 *         BI_WEIGHT_BITS: u64 words(in_c / groups) on the last axis, bit 1 is -1
 * residual [out_h][out_w][out_c] f32, or NULL;  beta is not read
 * target, signs  as in ../epilogue.h; all of both is written
 * rows    out_h
 *
 * A dense layer is a convolution of a 1x1 map with a 1x1 kernel.
 */
#ifndef BITINFER_CONV2D_H
#define BITINFER_CONV2D_H

#include "../epilogue.h"

static inline int bi_conv2d_is_integer(const bi_step *s)
{
    return (s->flags & (BI_FLAG_U8 | BI_FLAG_I8)) != 0 && s->table == NULL;
}

/* Number `bytes` rounded up to a multiple of 64. */
static inline size_t bi_conv2d_align(size_t bytes) { return (bytes + 63) / 64 * 64; }

static inline size_t bi_conv2d_taps(const bi_step *s)
{
    return (size_t)s->kernel_h * (size_t)s->kernel_w;
}

/* One weight; float32 holds all types exactly. */
static inline float bi_conv2d_weight_at(const bi_step *s, const void *canonical, size_t output,
                                        size_t tap, size_t channel)
{
    size_t channels = (size_t)(s->in_c / s->groups), row = output * bi_conv2d_taps(s) + tap;
    switch ((bi_weight_type)s->weight_type) {
    case BI_WEIGHT_F32: return ((const float *)canonical)[row * channels + channel];
    case BI_WEIGHT_I16: return (float)((const int16_t *)canonical)[row * channels + channel];
    case BI_WEIGHT_I8: return (float)((const int8_t *)canonical)[row * channels + channel];
    case BI_WEIGHT_BITS: {
        const uint64_t *words = (const uint64_t *)canonical + row * bi_words((int32_t)channels);
        return words[channel / 64] >> (channel % 64) & 1 ? -1.0f : 1.0f;
    }
    }
    return NAN;
}

/* With an offset, the bias depends on which taps lie inside the map:
 *
 *   shift[o] = float32(bias[o] - alpha[o] * sum over those taps, and c, of weight * offset[c])
 *
 * in double precision, the sum in the order ky, kx, c.  Rows of the output with the same taps are a
 * class, and so are columns; a step has a shift for every pair of classes.
 *
 * Layout: i32 [out_h] and [out_w], what a row and a column add to the index; f32 shifts
 * [class of rows][class of columns][out_c]; 16 floats more, so that vectors may be read anywhere. */
size_t bi_conv2d_shift_bytes(const bi_step *s);    /* 0 without an offset */
void bi_conv2d_pack_shifts(const bi_step *s, const void *canonical, void *shifts);

static inline const float *bi_conv2d_shift_at(const bi_step *s, const void *shifts, int32_t oy,
                                              int32_t ox)
{
    const int32_t *rows = shifts, *columns = rows + s->out_h;
    return (const float *)(columns + s->out_w) + rows[oy] + columns[ox];
}

#endif
