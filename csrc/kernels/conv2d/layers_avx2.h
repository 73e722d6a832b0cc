/* layers_avx2.h -- the three ways in which AVX2 computes a layer. */
#ifndef BITINFER_CONV2D_LAYERS_AVX2_H
#define BITINFER_CONV2D_LAYERS_AVX2_H

#include "plane.h"

/* Adds to the sums [pixel][16] of some pixels, see tile_avx2.h. */
typedef void bi_tile(size_t count, const unsigned char *const *pixel, const void *weight,
                     const bi_run *run, const bi_run *end, const void *from, void *sums);

/* Whichever fits; `of_integers` is what sums integers, NULL for AVX2. */
size_t bi_layers_weight_bytes(const bi_step *s);
void bi_layers_pack_weight(const bi_step *s, const void *canonical, void *packed);
size_t bi_layers_scratch_bytes(const bi_step *s);
void bi_layers_stage(const bi_step *s, const bi_pointers *at);
void bi_layers_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end,
                   bi_tile *of_integers);
void bi_layers_run_batch(const bi_step *s, const bi_pointers *at, size_t samples, int32_t begin,
                         int32_t end, bi_tile *of_integers);

/* Tiles: any layer. */
size_t bi_tiles_weight_bytes(const bi_step *s);
void bi_tiles_pack_weight(const bi_step *s, const void *canonical, void *packed);
size_t bi_tiles_scratch_bytes(const bi_step *s);
void bi_tiles_stage(const bi_step *s, const bi_pointers *at);
void bi_tiles_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end,
                  bi_tile *of_integers);

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

/* Four samples at once, with the sums of bi_dense_run(): at[0] to at[3]. */
int bi_dense_takes_four(const bi_step *s);
void bi_dense_run_four(const bi_step *s, const bi_pointers *at);

#endif
