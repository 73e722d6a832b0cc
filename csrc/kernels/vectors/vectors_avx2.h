/* vectors_avx2.h -- the vocabulary of ../epilogue_body.inc and ../bconv2d/tile_body.inc, which name an
 * operation V(add).  Of ../activation_body.inc:
 *
 *   lanes             floats of a vector
 *   floats            load, store, set, add, mul
 *     greater, less   x if it is greater (less) than y, else y: NaN gives y
 *     bend            y * slope where y < 0, else y
 *
 * Of the epilogue, too:
 *
 *   together          vectors that are best finished at once
 *   has_masks         whether part of a vector costs no more than all of it
 *     load_some       the first `count` lanes, which may be none or more than there are; the others
 *                     are 0
 *     store_some      only those lanes
 *     below           bit i: y < limit in lane i, not so for NaN
 *
 * Of tiles, too:
 *
 *   words             two for each float: load_words, set_words, add_words (mod 2^16), times_four,
 *                     low_bytes, high_bytes
 *     to_floats       from the words of the even and the odd bytes (lookup.h has their order), as
 *                     signed numbers, four vectors in natural order
 *     words_below     bit c: the word of channel c, signed, is less than its threshold; thresholds are
 *                     those of the even bytes, then of the odd ones
 *   signs             an unsigned integer of a bit for each byte of a vector
 */
#ifndef BITINFER_VECTORS_AVX2_H
#define BITINFER_VECTORS_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "../isa.h"
#include "../unroll.h"

#define BI_HERE BI_TARGET_avx2 static inline __attribute__((always_inline))

typedef __m256 bi_v_floats_avx2;
typedef __m256i bi_v_words_avx2;
typedef uint32_t bi_v_signs_avx2;
enum { bi_v_lanes_avx2 = 8, bi_v_together_avx2 = 4, bi_v_has_masks_avx2 = 0 };

BI_HERE __m256 bi_v_load_avx2(const float *from) { return _mm256_loadu_ps(from); }
BI_HERE void bi_v_store_avx2(float *to, __m256 y) { _mm256_storeu_ps(to, y); }
BI_HERE __m256 bi_v_set_avx2(float x) { return _mm256_set1_ps(x); }
BI_HERE __m256 bi_v_add_avx2(__m256 x, __m256 y) { return _mm256_add_ps(x, y); }
BI_HERE __m256 bi_v_mul_avx2(__m256 x, __m256 y) { return _mm256_mul_ps(x, y); }
BI_HERE __m256 bi_v_greater_avx2(__m256 x, __m256 y) { return _mm256_max_ps(x, y); }
BI_HERE __m256 bi_v_less_avx2(__m256 x, __m256 y) { return _mm256_min_ps(x, y); }

BI_HERE __m256 bi_v_load_some_avx2(const float *from, int32_t count)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(from, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
}

/* As stores of 4, 2 and 1, because masked ones are slow on Zen. */
BI_HERE void bi_v_store_some_avx2(float *to, __m256 y, int32_t count)
{
    if (count >= 8) {
        _mm256_storeu_ps(to, y);
        return;
    }
    if (count <= 0)
        return;
    __m128 part = _mm256_castps256_ps128(y);
    if (count & 4) {
        _mm_storeu_ps(to, part);
        part = _mm256_extractf128_ps(y, 1);
        to += 4;
    }
    if (count & 2) {
        _mm_storel_pi((__m64 *)(void *)to, part);
        part = _mm_movehl_ps(part, part);
        to += 2;
    }
    if (count & 1)
        _mm_store_ss(to, part);
}

BI_HERE __m256 bi_v_bend_avx2(__m256 y, __m256 slope)
{
    __m256 negative = _mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_blendv_ps(y, _mm256_mul_ps(y, slope), negative);
}

BI_HERE uint32_t bi_v_below_avx2(__m256 y, __m256 limit)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(y, limit, _CMP_LT_OQ));
}

BI_HERE __m256i bi_v_load_words_avx2(const int16_t *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}
BI_HERE __m256i bi_v_set_words_avx2(int16_t x) { return _mm256_set1_epi16(x); }
BI_HERE __m256i bi_v_add_words_avx2(__m256i x, __m256i y) { return _mm256_add_epi16(x, y); }
BI_HERE __m256i bi_v_times_four_avx2(__m256i x) { return _mm256_slli_epi16(x, 2); }
BI_HERE __m256i bi_v_low_bytes_avx2(__m256i x)
{
    return _mm256_and_si256(x, _mm256_set1_epi16(0x00ff));
}
BI_HERE __m256i bi_v_high_bytes_avx2(__m256i x) { return _mm256_srli_epi16(x, 8); }

BI_HERE void bi_v_to_floats_avx2(__m256i even, __m256i odd, __m256 *y)
{
    const __m128i words[4] = {_mm256_castsi256_si128(even), _mm256_castsi256_si128(odd),
                              _mm256_extracti128_si256(even, 1), _mm256_extracti128_si256(odd, 1)};
    BI_UNROLL for (int i = 0; i < 4; i++)
        y[i] = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words[i]));
}

BI_HERE uint32_t bi_v_words_below_avx2(__m256i even, __m256i odd, const int16_t *thresholds)
{
    even = _mm256_cmpgt_epi16(bi_v_load_words_avx2(thresholds), even);
    odd = _mm256_cmpgt_epi16(bi_v_load_words_avx2(thresholds + 16), odd);
    return (uint32_t)_mm256_movemask_epi8(_mm256_packs_epi16(even, odd));
}

#undef BI_HERE
#endif
