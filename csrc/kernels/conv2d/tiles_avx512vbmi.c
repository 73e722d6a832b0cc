/* tiles_avx512vbmi.c -- tiles_avx2.c for integers by signs, by vpdpwssd, which multiplies and adds in one
 * instruction: the signs are kept as bits, which tiles64_avx512vbmi.c does not read.
 */
#if defined(__x86_64__)
#include "tile_avx2.h"
#include "tiles_avx2.h"

#define DOT_PRODUCTS(pixel, a, b)                                      \
    "vpbroadcastd (%[p" #pixel "], %[k]), %%ymm14\n\t"                 \
    "vpdpwssd %%ymm14, %%ymm12, %%ymm" #a "\n\t"                       \
    "vpdpwssd %%ymm14, %%ymm13, %%ymm" #b "\n\t"

DEFINE_TILES(tile_dot_products, DOT_PRODUCTS)

static int tiles_avx512vbmi_takes(const bi_step *s)
{
    return bi_conv2d_is_integer(s) && s->weight_type == BI_WEIGHT_BITS;
}

static void tiles_avx512vbmi_run(const bi_step *s, const bi_pointers *at, int32_t begin,
                                 int32_t end)
{
    bi_tiles_run(s, at, begin, end, tile_dot_products);
}

#define TILES_AVX512VBMI                                   \
    {                                            \
        .takes = tiles_avx512vbmi_takes,                          \
        .block = BI_TILE_OUTPUTS,                \
        .weight_bytes = bi_tiles_weight_bytes,   \
        .pack_weight = bi_tiles_pack_weight,     \
        .scratch_bytes = bi_tiles_scratch_bytes, \
        .stage = bi_tiles_stage,                 \
        .run = tiles_avx512vbmi_run,                              \
    }
const bi_kernel bi_conv2d_tiles_avx512vbmi = TILES_AVX512VBMI;
const bi_kernel bi_dense_tiles_avx512vbmi = TILES_AVX512VBMI;
#endif
