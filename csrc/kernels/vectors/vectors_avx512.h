/* vectors_avx512.h -- the vocabulary that vectors_avx2.h describes, for AVX-512 BW. */
#ifndef BITINFER_VECTORS_AVX512_H
#define BITINFER_VECTORS_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "../isa.h"

#define BI_HERE BI_TARGET_avx512bw static inline __attribute__((always_inline))

typedef __m512 bi_v_floats_avx512;
typedef __m512i bi_v_words_avx512;
typedef uint64_t bi_v_signs_avx512;
enum { bi_v_lanes_avx512 = 16, bi_v_together_avx512 = 1, bi_v_has_masks_avx512 = 1 };

BI_HERE __m512 bi_v_load_avx512(const float *from) { return _mm512_loadu_ps(from); }
BI_HERE void bi_v_store_avx512(float *to, __m512 y) { _mm512_storeu_ps(to, y); }
BI_HERE __m512 bi_v_set_avx512(float x) { return _mm512_set1_ps(x); }
BI_HERE __m512 bi_v_add_avx512(__m512 x, __m512 y) { return _mm512_add_ps(x, y); }
BI_HERE __m512 bi_v_mul_avx512(__m512 x, __m512 y) { return _mm512_mul_ps(x, y); }
BI_HERE __m512 bi_v_greater_avx512(__m512 x, __m512 y) { return _mm512_max_ps(x, y); }
BI_HERE __m512 bi_v_less_avx512(__m512 x, __m512 y) { return _mm512_min_ps(x, y); }

BI_HERE __mmask16 bi_v_first_lanes_avx512(int32_t count)
{
    return count >= 16 ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}
BI_HERE __m512 bi_v_load_some_avx512(const float *from, int32_t count)
{
    return _mm512_maskz_loadu_ps(bi_v_first_lanes_avx512(count), from);
}
BI_HERE void bi_v_store_some_avx512(float *to, __m512 y, int32_t count)
{
    _mm512_mask_storeu_ps(to, bi_v_first_lanes_avx512(count), y);
}

BI_HERE __m512 bi_v_bend_avx512(__m512 y, __m512 slope)
{
    __mmask16 negative = _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mul_ps(y, negative, y, slope);
}

BI_HERE uint32_t bi_v_below_avx512(__m512 y, __m512 limit)
{
    return _mm512_cmp_ps_mask(y, limit, _CMP_LT_OQ);
}

BI_HERE __m512i bi_v_load_words_avx512(const int16_t *from) { return _mm512_loadu_si512(from); }
BI_HERE __m512i bi_v_set_words_avx512(int16_t x) { return _mm512_set1_epi16(x); }
BI_HERE __m512i bi_v_add_words_avx512(__m512i x, __m512i y) { return _mm512_add_epi16(x, y); }
BI_HERE __m512i bi_v_times_four_avx512(__m512i x) { return _mm512_slli_epi16(x, 2); }
BI_HERE __m512i bi_v_low_bytes_avx512(__m512i x)
{
    return _mm512_and_si512(x, _mm512_set1_epi16(0x00ff));
}
BI_HERE __m512i bi_v_high_bytes_avx512(__m512i x) { return _mm512_srli_epi16(x, 8); }

BI_HERE void bi_v_to_floats_avx512(__m512i even, __m512i odd, __m512 *y)
{
    /* Each 128 bits hold channels 16 i .. 16 i + 7 (even) and 16 i + 8 .. 16 i + 15 (odd). */
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    __m512i low = _mm512_permutex2var_epi64(even, first, odd);
    __m512i high = _mm512_permutex2var_epi64(even, second, odd);
    y[0] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(low)));
    y[1] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(low, 1)));
    y[2] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(high)));
    y[3] = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(high, 1)));
}

BI_HERE uint64_t bi_v_words_below_avx512(__m512i even, __m512i odd, const int16_t *thresholds)
{
    uint64_t even_signs = _mm512_cmpgt_epi16_mask(bi_v_load_words_avx512(thresholds), even);
    uint64_t odd_signs = _mm512_cmpgt_epi16_mask(bi_v_load_words_avx512(thresholds + 32), odd);
    return _pdep_u64(even_signs, UINT64_C(0x00ff00ff00ff00ff)) |
           _pdep_u64(odd_signs, UINT64_C(0xff00ff00ff00ff00));
}

#undef BI_HERE
#endif
