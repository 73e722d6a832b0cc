/* pool.h -- maximum and mean over a window.
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
#ifndef BITINFER_POOL_H
#define BITINFER_POOL_H

#include "../kernel.h"

/* What the three methods of the maximum take: signs; strip, floats in windows of 3x3 (max_body.inc);
 * windows, any floats. */
int bi_max_pool2d_signs_takes(const bi_step *s);
int bi_max_pool2d_strip_takes(const bi_step *s);
int bi_max_pool2d_windows_takes(const bi_step *s);

/* Four words of signs. */
typedef uint64_t u64x4 __attribute__((vector_size(32), aligned(8), may_alias));

typedef struct {
    int32_t y_first, y_end, x_first, x_end;    /* map pixels inside the window; never empty */
} bi_pool_area;

static inline __attribute__((always_inline)) bi_pool_area bi_pool_area_at(const bi_step *s,
                                                                          int32_t oy, int32_t ox)
{
    int32_t y = oy * s->stride_h - s->pad_top, x = ox * s->stride_w - s->pad_left;
    bi_pool_area a = {
        .y_first = y > 0 ? y : 0,
        .y_end = y + s->kernel_h < s->in_h ? y + s->kernel_h : s->in_h,
        .x_first = x > 0 ? x : 0,
        .x_end = x + s->kernel_w < s->in_w ? x + s->kernel_w : s->in_w,
    };
    return a;
}

typedef enum { BI_POOL_MAX, BI_POOL_SUM } bi_pool_kind;

/* The map pixel along an axis that is nearest to place i. */
static inline int32_t bi_pool_clamp(int32_t i, int32_t extent)
{
    return i < 0 ? 0 : i < extent ? i : extent - 1;
}

#endif
