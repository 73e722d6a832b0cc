/* pack_signs_avx2.c -- 32 signs at a time: compare (not the sign bit: -0.0 is not negative), narrow
 * the masks to bytes, vpmovmskb. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "../unroll.h"
#include "pack_signs.h"

/* Four sums, so that an addition need not wait for the last, and one of what is left of a word. */
typedef struct {
    __m256 sums[4];
    float rest;
} bi_zeros_avx2;

BI_TARGET_avx2 static inline float sum_avx2(const bi_zeros_avx2 *zeros)
{
    const __m256 *sums = zeros->sums;
    float parts[8], sum = zeros->rest;
    _mm256_storeu_ps(
        parts, _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
    for (int i = 0; i < 8; i++)
        sum += parts[i];
    return sum;
}

/* All ones where an element is below the threshold, for eight elements. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256i
compare_eight(const char *source, const float *threshold, bi_pack_type type, __m256 *sum)
{
    __m256 x;
    if (type == BI_FROM_FLOAT)
        x = _mm256_loadu_ps((const float *)source);
    else if (type == BI_FROM_U8)
        x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)source)));
    else
        x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)source)));
    if (sum != NULL)
        *sum = _mm256_fmadd_ps(x, _mm256_setzero_ps(), *sum);
    __m256 t = threshold != NULL ? _mm256_loadu_ps(threshold) : _mm256_setzero_ps();
    return _mm256_castps_si256(_mm256_cmp_ps(x, t, _CMP_LT_OQ));
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) uint64_t
pack_word_avx2(const void *source, const float *threshold, int32_t count, bi_pack_type type,
               bi_zeros_avx2 *zeros)
{
    /* The packs work within 128-bit halves; this brings fours of elements back into order. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const size_t size = type == BI_FROM_FLOAT ? sizeof(float) : 1;
    const char *from = source;
    uint64_t word = 0;
    int32_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i below[4];
        BI_UNROLL for (size_t k = 0; k < 4; k++)
            below[k] = compare_eight(from + 8 * k * size,
                                     threshold != NULL ? threshold + 8 * k : NULL, type,
                                     zeros != NULL ? &zeros->sums[k] : NULL);
        __m256i low = _mm256_packs_epi32(below[0], below[1]);
        __m256i high = _mm256_packs_epi32(below[2], below[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        word |= (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes) << i;
        from += 32 * size;
        threshold = threshold != NULL ? threshold + 32 : NULL;
    }
    for (; i + 8 <= count; i += 8) {
        __m256 below = _mm256_castsi256_ps(
            compare_eight(from, threshold, type, zeros != NULL ? &zeros->sums[0] : NULL));
        word |= (uint64_t)(uint32_t)_mm256_movemask_ps(below) << i;
        from += 8 * size;
        threshold = threshold != NULL ? threshold + 8 : NULL;
    }
    if (i < count)
        word |= bi_pack_word(from, threshold, count - i, type, zeros != NULL ? &zeros->rest : NULL)
                << i;
    return word;
}

BI_DEFINE_PACK_SIGNS(avx2, pack_word_avx2, sum_avx2)

const bi_kernel bi_pack_signs_compare_avx2 = {.block = 32, .looks = bi_pack_signs_looks, .run = pack_signs_avx2};
#endif
