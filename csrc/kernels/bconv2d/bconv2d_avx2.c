/* bconv2d_avx2.c -- binary convolution by table look-up (lookup.h has the arithmetic,
 * lookup_pairs.inc the layout, lookup_avx2.h the inner loop, tile_body.inc the loops around it), 32
 * channels and two pixels to a vector.
 */
#if defined(__x86_64__)
#include "../unroll.h"
#include "../vectors/vectors_avx2.h"
#include "lookup.h"
#include "lookup_avx2.h"
#include "pairs_avx2.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_NAME(operation) bi_##operation##_lookup4_avx2
#define BI_OWN(name) name##_lookup4_avx2
#define NOT_WITH 0
#define V(operation) bi_v_##operation##_avx2
#define BI_SUMS bi_sums_avx2
#define BI_LONGEST BI_LONGEST_SUM_AVX2
#define BI_AT_ONCE(vectors) ((vectors) == 2 ? 2 : 1)
#define BI_REPEATS 0
#define BI_ZERO _mm256_setzero_si256()

#define BI_NUMBER(v, j, vectors, pairs) ((void)(pairs), (j) * (vectors) + (v))

#define add_entries BI_OWN(add_entries)
#define add_part BI_OWN(add_part)
#define separate bi_separate_avx2

BI_TARGET_avx2 static inline __attribute__((always_inline)) void
add_entries(const uint16_t *index, const uint16_t *other, const uint8_t *weight, size_t entries,
            int vectors, int pairs, bi_sums_avx2 *sums)
{
    const uint8_t *tables = bi_lookup_nibbles[0];
    if (pairs == 2)
        bi_add_entries_2x2(index, other, weight, entries, tables, sums);
    else if (vectors == 4)
        bi_add_entries_4(index, index, weight, entries, tables, sums);
    else if (vectors == 3)
        bi_add_entries_3(index, index, weight, entries, tables, sums);
    else if (vectors == 2)
        bi_add_entries_2(index, index, weight, entries, tables, sums);
    else
        bi_add_entries_1(index, index, weight, entries, tables, sums);
}

#include "segments_body.inc"
#include "tile_body.inc"

static int BI_OWN(suits)(const bi_step *s)
{
    (void)s;
    return 1;
}

#include "lookup_pairs.inc"

#undef LANES
#undef run_block
#undef add_entries
#undef add_part
#undef separate
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef NOT_WITH
#undef V
#undef BI_SUMS
#undef BI_LONGEST
#undef BI_AT_ONCE
#undef BI_REPEATS
#undef BI_ZERO
#undef BI_NUMBER
#endif
