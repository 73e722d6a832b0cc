/* pack_signs_avx2.c -- 32 signs at a time: compare (not the sign bit: -0.0 is not negative), narrow
 * the masks to bytes, vpmovmskb. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "pack_signs.h"

/* All ones where element i is below the threshold, for eight elements. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256i
compare_eight(const void *source, const float *threshold, int32_t i, bi_pack_type type)
{
    const char *bytes = source;
    __m256 x;
    if (type == BI_FROM_FLOAT)
        x = _mm256_loadu_ps((const float *)source + i);
    else if (type == BI_FROM_U8)
        x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(bytes + i))));
    else
        x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(bytes + i))));
    __m256 t = threshold != NULL ? _mm256_loadu_ps(threshold + i) : _mm256_setzero_ps();
    return _mm256_castps_si256(_mm256_cmp_ps(x, t, _CMP_LT_OQ));
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) uint64_t
pack_word_avx2(const void *source, const float *threshold, int32_t count, bi_pack_type type)
{
    /* The packs work within 128-bit halves; this brings fours of elements back into order. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    uint64_t word = 0;
    int32_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i low = _mm256_packs_epi32(compare_eight(source, threshold, i, type),
                                         compare_eight(source, threshold, i + 8, type));
        __m256i high = _mm256_packs_epi32(compare_eight(source, threshold, i + 16, type),
                                          compare_eight(source, threshold, i + 24, type));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        word |= (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes) << i;
    }
    for (; i + 8 <= count; i += 8) {
        __m256 below = _mm256_castsi256_ps(compare_eight(source, threshold, i, type));
        word |= (uint64_t)(uint32_t)_mm256_movemask_ps(below) << i;
    }
    if (i < count) {
        const char *rest = (const char *)source + (size_t)i * (type == BI_FROM_FLOAT ? 4 : 1);
        const float *t = threshold != NULL ? threshold + i : NULL;
        word |= bi_pack_word(rest, t, count - i, type) << i;
    }
    return word;
}

BI_DEFINE_PACK_SIGNS(avx2, pack_word_avx2)

const bi_kernel bi_pack_signs_compare_avx2 = {.block = 32, .run = pack_signs_avx2};
#endif
