/* pairs_avx2.h -- entries of pairs of pixels, for lookup_pairs.inc on CPUs with AVX2. */
#ifndef BITINFER_PAIRS_AVX2_H
#define BITINFER_PAIRS_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "../isa.h"

/* Entries of a pixel that have an odd number of ones. */
BI_TARGET_avx2 static inline uint16_t odd_entries(const uint64_t *pixel, size_t words)
{
    int32_t count = 0;
    for (size_t k = 0; k < words; k++) {
        uint64_t word = pixel[k];
        word ^= word >> 1;
        word ^= word >> 2;
        count += __builtin_popcountll(word & UINT64_C(0x1111111111111111));
    }
    return (uint16_t)count;
}

/* Write the entries of the pairs (a[k], b[k]), 16 to a word. */
BI_TARGET_avx2 static inline void write_pairs(const uint64_t *a, const uint64_t *b, size_t words,
                                              uint16_t *to)
{
    const __m128i low = _mm_set1_epi8(0x0f), high = _mm_set1_epi8((char)0xf0);
    for (size_t k = 0; k < words; k += 2, to += 32) {
        int both = k + 1 < words;
        __m128i x = both ? _mm_loadu_si128((const __m128i *)(a + k))
                         : _mm_loadl_epi64((const __m128i *)(a + k));
        __m128i y = both ? _mm_loadu_si128((const __m128i *)(b + k))
                         : _mm_loadl_epi64((const __m128i *)(b + k));
        __m128i even = _mm_or_si128(_mm_and_si128(x, low),
                                    _mm_and_si128(_mm_slli_epi16(y, 4), high));
        __m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(x, 4), low),
                                   _mm_and_si128(y, high));
        __m256i first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
        _mm256_storeu_si256((__m256i *)to, _mm256_slli_epi16(first, 4));
        if (both) {
            __m256i second = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd));
            _mm256_storeu_si256((__m256i *)(to + 16), _mm256_slli_epi16(second, 4));
        }
    }
}

#endif
