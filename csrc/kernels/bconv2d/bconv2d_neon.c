/* bconv2d_neon.c -- binary convolution by table look-up (lookup.h has the arithmetic,
 * lookup_pairs.inc the layout, lookup_neon.h the inner loop, tile_body.inc the loops around it), 16
 * channels and two pixels to a vector.  The speed of this kernel has not been measured.
 */
#if defined(__aarch64__)
#include "../vectors/vectors_neon.h"
#include "lookup.h"
#include "lookup_neon.h"

#define BI_TARGET BI_TARGET_neon
#define BI_NAME(operation) bi_##operation##_lookup4_neon
#define BI_OWN(name) name##_lookup4_neon
#define NOT_WITH 0
#define V(operation) bi_v_##operation##_neon
#define BI_SUMS bi_sums_neon
#define BI_LONGEST BI_LONGEST_SUM_NEON
#define BI_AT_ONCE(vectors) 2
#define BI_REPEATS 0
#define BI_ZERO vdupq_n_u8(0)

#define BI_NUMBER(v, j, vectors, pairs) ((void)(vectors), (v) * (pairs) + (j))

#define add_entries BI_OWN(add_entries)
#define add_part BI_OWN(add_part)
#define separate BI_OWN(separate)

/* Write the entries of the pairs (a[k], b[k]), 16 to a word. */
BI_TARGET_neon static inline void write_pairs(const uint64_t *a, const uint64_t *b, size_t words,
                                              uint16_t *to)
{
    for (size_t k = 0; k < words; k++, to += 16) {
        uint8x8_t x = vreinterpret_u8_u64(vld1_u64(a + k));
        uint8x8_t y = vreinterpret_u8_u64(vld1_u64(b + k));
        uint8x8_t even = vsli_n_u8(x, y, 4), odd = vsri_n_u8(y, x, 4);
        vst1q_u16(to, vshll_n_u8(vzip1_u8(even, odd), 4));
        vst1q_u16(to + 8, vshll_n_u8(vzip2_u8(even, odd), 4));
    }
}

/* Entries of a pixel that have an odd number of ones. */
BI_TARGET_neon static inline uint16_t odd_entries(const uint64_t *pixel, size_t words)
{
    uint16x4_t total = vdup_n_u16(0);
    for (size_t k = 0; k < words; k++) {
        uint8x8_t x = vreinterpret_u8_u64(vld1_u64(pixel + k));
        x = veor_u8(x, vshr_n_u8(x, 1));
        x = veor_u8(x, vshr_n_u8(x, 2));
        total = vpadal_u8(total, vcnt_u8(vand_u8(x, vdup_n_u8(0x11))));
    }
    return vaddv_u16(total);
}

BI_TARGET_neon static inline __attribute__((always_inline)) void
add_entries(const uint16_t *index, const uint16_t *other, const uint8_t *weight, size_t entries,
            int vectors, int pairs, bi_sums_neon *sums)
{
    bi_add_entries_neon(index, other, weight, entries, bi_lookup_nibbles[0], vectors, pairs, sums);
}

#include "segments_body.inc"

/* The sums of both pixels as words of two bytes each. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
separate(uint8x16_t f, uint8x16_t h, uint16x8_t *a, uint16x8_t *b)
{
    uint8x16_t a_bytes, b_bytes;
    bi_separate_neon(f, h, &a_bytes, &b_bytes);
    *a = vreinterpretq_u16_u8(a_bytes);
    *b = vreinterpretq_u16_u8(b_bytes);
}

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
