/* bconv2d_pixels4_avx2.c -- binary convolution by tables of nibbles with pixels in the lanes (pixels.h has
 * the arithmetic and the layouts, pixels_body.inc the kernel, lookup_avx2.h the inner loop): for up to 64
 * outputs, which would leave vectors of outputs empty.
 */
#if defined(__x86_64__)
#include "../unroll.h"
#include "../vectors/vectors_avx2.h"
#include "lookup.h"
#include "lookup_avx2.h"
#include "pixels.h"
#include "planes_avx2.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_NAME(operation) bi_##operation##_pixels4_avx2
#define BI_OWN(name) name##_pixels4_avx2
#define V(operation) bi_v_##operation##_avx2
#define TAKES bi_pixels_take_avx2
#define LANES 32
#define MOST_VECTORS 4
#define LANES_TYPE __m256i

#define load_lanes load_pixels
#define store_lanes store_pixels
#define interleave_lanes BI_OWN(interleave_lanes)
#define store_sixteen BI_OWN(store_sixteen)
#define add_pairs BI_OWN(add_pairs)
#define bits_of BI_OWN(bits_of)
#define bits_below BI_OWN(bits_below)
#define floats_of BI_OWN(floats_of)

PIXELS_INLINE void interleave_lanes(const __m256i *from, __m256i *to)
{
    interleave_bytes(from, to, 4);
}

PIXELS_INLINE void store_sixteen(uint8_t *to, __m256i x, int number)
{
    _mm_store_si128((__m128i *)(void *)to,
                    number == 0 ? _mm256_castsi256_si128(x) : _mm256_extracti128_si256(x, 1));
}

PIXELS_INLINE void add_pairs(const uint16_t *tables, size_t count, int32_t pairs,
                             const uint8_t *entries, uint8_t *to, int32_t apart, int vectors)
{
    const uint8_t *nibbles = bi_lookup_nibbles[0];
    for (int32_t pair = 0; pair < pairs; pair++, tables += count, to += 2 * apart) {
        bi_sums_avx2 sums;
    BI_UNROLL for (int v = 0; v < vectors; v++)
            sums.f[v] = sums.h[v] = _mm256_setzero_si256();
        if (vectors == 4)
            bi_add_entries_4(tables, tables, entries, count, nibbles, &sums);
        else if (vectors == 3)
            bi_add_entries_3(tables, tables, entries, count, nibbles, &sums);
        else if (vectors == 2)
            bi_add_entries_2(tables, tables, entries, count, nibbles, &sums);
        else
            bi_add_entries_1(tables, tables, entries, count, nibbles, &sums);
        BI_UNROLL for (int v = 0; v < vectors; v++) {
            __m256i first, second;
            bi_separate_avx2(sums.f[v], sums.h[v], &first, &second);
            store_pixels(to + v * LANES, first);
            store_pixels(to + apart + v * LANES, second);
        }
    }
}

/* Bits of two vectors of words of ones. */
PIXELS_INLINE uint64_t bits_of(__m256i first, __m256i second)
{
    __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
    return (uint32_t)_mm256_movemask_epi8(both);
}

PIXELS_INLINE uint64_t bits_below(const bi_pixels_sixteen *of, int parts, int sixteens)
{
    __m256i words[4];
    BI_UNROLL for (int i = 0; i < 4; i++)
        words[i] = i >= sixteens ? words[1]
                                 : _mm256_cmpgt_epi16(load_pixels(of[i].constants), sums_but_odd(&of[i], parts, 1));
    uint64_t below = bits_of(words[0], words[1]);
    return sixteens > 2 ? below | bits_of(words[2], words[3]) << 32 : below;
}

PIXELS_INLINE void floats_of(const bi_pixels_sixteen *of, int parts, __m256 *y)
{
    __m256i dot = _mm256_add_epi16(sums_but_odd(of, parts, 4), load_pixels(of->constants));
    y[0] = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(dot)));
    y[1] = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(dot, 1)));
}

#include "pixels_body.inc"
#undef bits_of
#endif
