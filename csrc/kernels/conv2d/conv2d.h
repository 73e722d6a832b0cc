/* conv2d.h -- float convolution and dense layer.
 *
 *   target[y][x][o] = (sum over ky, kx, c, in this order, of source * weight) + bias[o]
 *
 * Products and sums are rounded one by one (no fused multiply-add), so every version gives the same
 * floats.  Taps outside the map are 0 and skipped.
 *
 * source  [in_h][in_w][in_c] f32
 * weight  canonical: [out_c][kernel_h][kernel_w][in_c / groups] f32
 * bias    [out_c] f32, or NULL;  target [out_h][out_w][out_c] f32
 * rows    out_h
 *
 * A dense layer is a convolution of a 1x1 map with a 1x1 kernel.
 *
 * Packed weight: [group][block of 8 outputs][ky][kx][c][8] f32, missing outputs 0.
 */
#ifndef BITINFER_CONV2D_H
#define BITINFER_CONV2D_H

#include "../kernel.h"

size_t bi_conv2d_weight_bytes(const bi_step *s);
void bi_conv2d_pack_weight(const bi_step *s, const void *canonical, void *packed);

#endif
