/* layers_avx2.h -- the three ways in which AVX2 computes a layer. */
#ifndef BITINFER_CONV2D_LAYERS_AVX2_H
#define BITINFER_CONV2D_LAYERS_AVX2_H

#include "conv2d.h"

/* Tiles: any layer. */
size_t bi_tiles_weight_bytes(const bi_step *s);
void bi_tiles_pack_weight(const bi_step *s, const void *canonical, void *packed);
size_t bi_tiles_scratch_bytes(const bi_step *s);
void bi_tiles_stage(const bi_step *s, const bi_pointers *at);
void bi_tiles_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end);

/* Depthwise: floats, as many groups as inputs and outputs. */
int bi_depthwise_takes(const bi_step *s);
size_t bi_depthwise_weight_bytes(const bi_step *s);
void bi_depthwise_pack_weight(const bi_step *s, const void *canonical, void *packed);
void bi_depthwise_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end);

/* Dense: floats, one pixel, whose window is the whole map. */
int bi_dense_takes(const bi_step *s);
size_t bi_dense_weight_bytes(const bi_step *s);
void bi_dense_pack_weight(const bi_step *s, const void *canonical, void *packed);
size_t bi_dense_scratch_bytes(const bi_step *s);
void bi_dense_stage(const bi_step *s, const bi_pointers *at);
void bi_dense_run(const bi_step *s, const bi_pointers *at);

#endif
