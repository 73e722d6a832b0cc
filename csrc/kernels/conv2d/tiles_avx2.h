/* tiles_avx2.h -- what the kernels of tiles share: all but the innermost loop over integers. */
#ifndef BITINFER_CONV2D_TILES_AVX2_H
#define BITINFER_CONV2D_TILES_AVX2_H

#include "plane.h"

/* Adds to the sums [pixel][16] of some pixels, see tile_avx2.h. */
typedef void bi_tile(size_t count, const unsigned char *const *pixel, const void *weight,
                     const bi_run *run, const bi_run *end, const void *from, void *sums);

size_t bi_tiles_weight_bytes(const bi_step *s);
void bi_tiles_pack_weight(const bi_step *s, const void *canonical, void *packed);
size_t bi_tiles_scratch_bytes(const bi_step *s);
void bi_tiles_stage(const bi_step *s, const bi_pointers *at);
void bi_tiles_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end,
                  bi_tile *tile);

#endif
