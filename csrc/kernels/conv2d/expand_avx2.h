/* expand_avx2.h -- weights kept as bits, as the tiles read them: in the cache, for many pixels. */
#ifndef BITINFER_CONV2D_EXPAND_AVX2_H
#define BITINFER_CONV2D_EXPAND_AVX2_H

#include <immintrin.h>

#include "../isa.h"
#include "plane.h"

/* `count` steps of 16 floats; a step is 16 bits. */
BI_TARGET_avx2 static inline void bi_expand_floats(const uint16_t *bits, size_t count, float *to)
{
    __m256i to_top_low = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    __m256i to_top_high = _mm256_setr_epi32(23, 22, 21, 20, 19, 18, 17, 16);
    __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    for (size_t k = 0; k < count; k++, to += 16) {
        __m256i v = _mm256_set1_epi32(bits[k]);
        __m256 low = _mm256_castsi256_ps(_mm256_sllv_epi32(v, to_top_low));
        __m256 high = _mm256_castsi256_ps(_mm256_sllv_epi32(v, to_top_high));
        _mm256_store_ps(to, _mm256_or_ps(_mm256_and_ps(low, sign), one));
        _mm256_store_ps(to + 8, _mm256_or_ps(_mm256_and_ps(high, sign), one));
    }
}

/* `count` steps of 16 pairs of i16; a step is 16 pairs of bits.  The last pair of an odd run is
 * completed by 0. */
BI_TARGET_avx2 static inline void bi_expand_integers(const uint32_t *bits, size_t count, int odd,
                                                     int16_t *to)
{
    __m256i place = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192,
                                      16384, INT16_MIN);
    __m256i one = _mm256_set1_epi16(1);
    for (size_t k = 0; k < count; k++, to += 32) {
        __m256i low = _mm256_and_si256(_mm256_set1_epi16((int16_t)(bits[k] & 0xffff)), place);
        __m256i high = _mm256_and_si256(_mm256_set1_epi16((int16_t)(bits[k] >> 16)), place);
        low = _mm256_or_si256(_mm256_cmpeq_epi16(low, place), one);
        high = _mm256_or_si256(_mm256_cmpeq_epi16(high, place), one);
        if (odd && k + 1 == count) {
            low = _mm256_and_si256(low, _mm256_set1_epi32(0xffff));
            high = _mm256_and_si256(high, _mm256_set1_epi32(0xffff));
        }
        _mm256_store_si256((__m256i *)to, low);
        _mm256_store_si256((__m256i *)(to + 16), high);
    }
}

#endif
