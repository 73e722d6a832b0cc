/* bdense_avx2.c -- four words of a row at a time; counting as in bconv2d_avx2.c. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "bdense.h"

BI_TARGET_avx2 static __m256i count_bytes(__m256i bits)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(bits, low)),
                           _mm256_shuffle_epi8(table, high));
}

BI_TARGET_avx2 static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t words = bi_words(s->in_c);
    const uint64_t *source = at->source;
    for (int32_t o = begin; o < end; o++) {
        const uint64_t *weight = (const uint64_t *)s->weight + (size_t)o * words;
        __m256i total = _mm256_setzero_si256();
        size_t k = 0;
        for (; k + 4 <= words; k += 4) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(source + k));
            __m256i w = _mm256_loadu_si256((const __m256i *)(weight + k));
            __m256i bytes = count_bytes(_mm256_xor_si256(a, w));
            total = _mm256_add_epi64(total, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
        }
        int64_t sums[4];
        _mm256_storeu_si256((__m256i *)sums, total);
        int64_t differ = sums[0] + sums[1] + sums[2] + sums[3];
        for (; k < words; k++)
            differ += __builtin_popcountll(source[k] ^ weight[k]);
        bi_bdense_finish(s, at, o, (int32_t)differ);
    }
}

const bi_kernel bi_bdense_avx2 = {.run = run};
#endif
