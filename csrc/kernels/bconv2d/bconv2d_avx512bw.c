/* bconv2d_avx512bw.c -- binary convolution by tables of nibbles (lookup.h has the arithmetic,
 * lookup_pairs.inc the layout, lookup_avx512.inc the inner loop) for CPUs with AVX-512 BW but without
 * VBMI, 64 channels and two pixels to a vector.
 *
 * It takes no shape that would leave half of the vectors empty, and no dilated one.  CPUs with VBMI
 * have better, for the shapes that they leave, too: AVX2.
 */
#if defined(__x86_64__)
#include "../isa.h"
#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "lookup.h"
#include "pairs_avx2.h"

#define BI_TARGET BI_TARGET_avx512bw
#define BI_NAME(operation) bi_##operation##_lookup4_avx512bw
#define BI_OWN(name) name##_lookup4_avx512bw
#define NOT_WITH BI_ISA_avx512vbmi
#define BI_ENTRY_BITS 4
#define TABLES bi_lookup_nibbles[0]
#include "lookup_avx512.inc"
#include "tile_avx512.inc"

static int suits_lookup4_avx512bw(const bi_step *s)
{
    return s->dilation_w == 1 && s->out_c / s->groups > LANES / 2;
}

#include "lookup_pairs.inc"
#undef LANES
#undef run_block
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef NOT_WITH
#undef BI_ENTRY_BITS
#undef TABLES
#endif
