/* bconv2d_pixels4_avx512bw.c -- binary convolution by tables of nibbles with pixels in the lanes (pixels.h has
 * the arithmetic and the layouts, pixels_body.inc the kernel, lookup_avx512.inc the inner loop), with AVX-512 BW:
 * 64 pixels to a vector, and so many pairs of outputs at a time that entries are loaded for several.
 *
 * Pixels are laid out, and sixteen outputs finished, in vectors of 256 bits.
 */
#if defined(__x86_64__)
#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "lookup.h"
#include "pixels.h"
#include "planes_avx2.h"

#define BI_TARGET BI_TARGET_avx512bw
#define BI_NAME(operation) bi_##operation##_pixels4_avx512bw
#define BI_OWN(name) name##_pixels4_avx512bw
#define V(operation) bi_v_##operation##_avx512
#define TAKES bi_pixels_take_avx512bw
#define LANES 64
#define MOST_VECTORS 2
#define LANES_TYPE __m512i
#define BI_ENTRY_BITS 4

#define load_lanes BI_OWN(load_lanes)
#define store_lanes BI_OWN(store_lanes)
#define interleave_lanes BI_OWN(interleave_lanes)
#define store_sixteen BI_OWN(store_sixteen)
#define add_together BI_OWN(add_together)
#define add_pairs BI_OWN(add_pairs)
#define bits_below BI_OWN(bits_below)
#define floats_of BI_OWN(floats_of)

#include "lookup_avx512.inc"

#define PIXELS_BW_INLINE BI_TARGET_avx512bw static inline __attribute__((always_inline))

PIXELS_BW_INLINE __m512i load_lanes(const uint8_t *from) { return _mm512_loadu_si512(from); }
PIXELS_BW_INLINE void store_lanes(uint8_t *to, __m512i x) { _mm512_storeu_si512(to, x); }

PIXELS_BW_INLINE void interleave_lanes(const __m512i *from, __m512i *to)
{
    BI_UNROLL for (int i = 0; i < 2; i++) {
        to[2 * i] = _mm512_unpacklo_epi8(from[i], from[i + 2]);
        to[2 * i + 1] = _mm512_unpackhi_epi8(from[i], from[i + 2]);
    }
}

PIXELS_BW_INLINE void store_sixteen(uint8_t *to, __m512i x, int number)
{
    __m128i *sixteen = (__m128i *)(void *)to;
    switch (number) {
    case 0: _mm_store_si128(sixteen, _mm512_castsi512_si128(x)); break;
    case 1: _mm_store_si128(sixteen, _mm512_extracti32x4_epi32(x, 1)); break;
    case 2: _mm_store_si128(sixteen, _mm512_extracti32x4_epi32(x, 2)); break;
    default: _mm_store_si128(sixteen, _mm512_extracti32x4_epi32(x, 3)); break;
    }
}

/* Add up `together` pairs from number `pair` on; where there are fewer, the last of them several times. */
PIXELS_BW_INLINE void add_together(const uint16_t *tables, size_t count, int32_t pair, int32_t pairs,
                                   const uint8_t *entries, uint8_t *to, int32_t apart, int vectors, int together)
{
    const uint8_t *nibbles = bi_lookup_nibbles[0];
    const uint16_t *index[4];
    int32_t number[4];
    bi_sums_avx512 sums;
    BI_UNROLL for (int p = 0; p < together; p++) {
        number[p] = pair + p < pairs ? pair + p : pairs - 1;
        index[p] = tables + (size_t)number[p] * count;
    }
    if (vectors == 1)
        bi_add_part_4x1(index, 0, 0, entries, 1, count, nibbles, &sums);
    else if (together == 3)
        bi_add_part_3x2(index, 0, 0, entries, 1, count, nibbles, &sums);
    else
        bi_add_part_2x2(index, 0, 0, entries, 1, count, nibbles, &sums);
    BI_UNROLL for (int p = 0; p < together; p++)
        BI_UNROLL for (int v = 0; v < vectors; v++) {
            __m512i first, second;
            bi_separate_avx512(sums.f[together * v + p], sums.h[together * v + p], &first, &second);
            uint8_t *output = to + 2 * number[p] * apart + v * LANES;
            store_lanes(output, first);
            store_lanes(output + apart, second);
        }
}

/* Of two vectors three pairs at a time, and the last two or four by twos; of one, four. */
PIXELS_BW_INLINE void add_pairs(const uint16_t *tables, size_t count, int32_t pairs, const uint8_t *entries,
                                uint8_t *to, int32_t apart, int vectors)
{
    for (int32_t pair = 0, left; (left = pairs - pair) > 0;) {
        if (vectors == 1) {
            add_together(tables, count, pair, pairs, entries, to, apart, 1, 4);
            pair += 4;
        } else if (left == 3 || left > 4) {
            add_together(tables, count, pair, pairs, entries, to, apart, 2, 3);
            pair += 3;
        } else {
            add_together(tables, count, pair, pairs, entries, to, apart, 2, 2);
            pair += 2;
        }
    }
}

PIXELS_BW_INLINE uint64_t bits_below(const bi_pixels_sixteen *of, int parts, int sixteens)
{
    uint64_t below = 0;
    BI_UNROLL for (int i = 0; i < sixteens; i++) {
        __m256i limits = load_pixels(of[i].constants);
        below |= (uint64_t)_mm256_cmpgt_epi16_mask(limits, sums_but_odd(&of[i], parts, 1)) << (16 * i);
    }
    return below;
}

PIXELS_BW_INLINE void floats_of(const bi_pixels_sixteen *of, int parts, __m512 *y)
{
    __m256i dot = _mm256_add_epi16(sums_but_odd(of, parts, 4), load_pixels(of->constants));
    y[0] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(dot));
}

#include "pixels_body.inc"
#undef add_together
#undef PIXELS_BW_INLINE
#undef BI_ENTRY_BITS
#endif
