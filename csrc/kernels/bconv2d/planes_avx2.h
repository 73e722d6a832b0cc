/* planes_avx2.h -- the vectors of planes_body.inc, for AVX2, and sums of outputs. */
#ifndef BITINFER_PLANES_AVX2_H
#define BITINFER_PLANES_AVX2_H

#include <immintrin.h>

#include "../isa.h"
#include "../unroll.h"
#include "pixels.h"

#define PIXELS_LAID 32
#define PIXELS_TYPE __m256i
#define PIXELS_INLINE BI_TARGET_avx2 static inline __attribute__((always_inline))

PIXELS_INLINE __m256i load_pixels(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}
PIXELS_INLINE void store_pixels(void *to, __m256i x) { _mm256_storeu_si256((__m256i *)to, x); }

PIXELS_INLINE __m256i no_pixels(void) { return _mm256_setzero_si256(); }
PIXELS_INLINE __m256i add_bytes(__m256i x, __m256i y) { return _mm256_add_epi8(x, y); }

PIXELS_INLINE void interleave_bytes(const __m256i *from, __m256i *to, int count)
{
    BI_UNROLL for (int i = 0; i < count / 2; i++) {
        to[2 * i] = _mm256_unpacklo_epi8(from[i], from[i + count / 2]);
        to[2 * i + 1] = _mm256_unpackhi_epi8(from[i], from[i + count / 2]);
    }
}

PIXELS_INLINE __m256i load_words(const uint64_t *pixels)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)pixels)),
                                   _mm_loadu_si128((const __m128i *)(pixels + 16)), 1);
}

PIXELS_INLINE __m256i low_nibbles(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
PIXELS_INLINE __m256i high_nibbles(__m256i x) { return low_nibbles(_mm256_srli_epi16(x, 4)); }

PIXELS_INLINE __m256i parities(__m256i nibbles)
{
    const __m256i parity = _mm256_setr_epi8(0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0,
                                            1, 1, 0, 0, 1, 0, 1, 1, 0);
    return _mm256_shuffle_epi8(parity, nibbles);
}

PIXELS_INLINE __m256i constants_of(const uint16_t *columns, int32_t class_size, int32_t of_row)
{
    __m256i column = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)columns));
    column = _mm256_mullo_epi32(column, _mm256_set1_epi32(class_size));
    return _mm256_add_epi32(column, _mm256_set1_epi32(of_row));
}

PIXELS_INLINE void note_odd(__m256i counts, int is_floats, int32_t outputs, int32_t *constants, int16_t *odd)
{
    BI_UNROLL for (int i = 0; i < 2; i++) {
        __m128i bytes = i == 0 ? _mm256_castsi256_si128(counts) : _mm256_extracti128_si256(counts, 1);
        __m256i words = _mm256_cvtepu8_epi16(bytes);
        if (is_floats) {
            store_pixels(odd + 16 * i, _mm256_add_epi16(words, words));
            continue;
        }
        store_pixels(odd + 16 * i, _mm256_srli_epi16(words, 1));
        int32_t *here = constants + 16 * i;
        BI_UNROLL for (int j = 0; j < 2; j++, here += 8, bytes = _mm_srli_si128(bytes, 8)) {
            __m256i is_odd = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 31);
            __m256i more = _mm256_and_si256(_mm256_srai_epi32(is_odd, 31), _mm256_set1_epi32(outputs));
            store_pixels(here, _mm256_add_epi32(load_pixels(here), more));
        }
    }
}

#define BI_TARGET BI_TARGET_avx2
#include "planes_body.inc"
#undef BI_TARGET

/* Some times (a constant, 1 or 4) the sums of sixteen outputs of a pixel, in words, but for what their constants do
 * not have. */
PIXELS_INLINE __m256i sums_but_odd(const bi_pixels_sixteen *of, int parts, int times)
{
    __m256i sums;
    if (parts == 2) {
        sums = _mm256_maddubs_epi16(load_pixels(of->sums), _mm256_set1_epi8((char)times));
    } else {
        sums = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)(const void *)of->sums));
        sums = times == 4 ? _mm256_slli_epi16(sums, 2) : sums;
    }
    return _mm256_sub_epi16(sums, _mm256_set1_epi16(of->odd));
}

#endif
