/* conv2d_avx512vbmi.c -- the kernels of AVX2, but integers by vpdpwssd, which multiplies and adds in one
 * instruction.  Wider vectors are not used: Zen 4 halves them. */
#if defined(__x86_64__)
#include "layers_avx2.h"
#include "tile_avx2.h"

#define DOT_PRODUCTS(pixel, a, b)                                      \
    "vpbroadcastd (%[p" #pixel "], %[k]), %%ymm14\n\t"                 \
    "vpdpwssd %%ymm14, %%ymm12, %%ymm" #a "\n\t"                       \
    "vpdpwssd %%ymm14, %%ymm13, %%ymm" #b "\n\t"

DEFINE_TILES(tile_dot_products, DOT_PRODUCTS)

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    bi_layers_run(s, at, begin, end, tile_dot_products);
}

static void run_batch(const bi_step *s, const bi_pointers *at, size_t samples, int32_t begin,
                      int32_t end)
{
    bi_layers_run_batch(s, at, samples, begin, end, tile_dot_products);
}

const bi_kernel bi_conv2d_avx512vbmi = {
    .weight_bytes = bi_layers_weight_bytes,
    .pack_weight = bi_layers_pack_weight,
    .scratch_bytes = bi_layers_scratch_bytes,
    .stage = bi_layers_stage,
    .run = run,
};
const bi_kernel bi_dense_avx512vbmi = {
    .weight_bytes = bi_layers_weight_bytes,
    .pack_weight = bi_layers_pack_weight,
    .scratch_bytes = bi_layers_scratch_bytes,
    .stage = bi_layers_stage,
    .run = run,
    .run_batch = run_batch,
};
#endif
