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

#endif
