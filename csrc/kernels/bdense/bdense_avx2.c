/* bdense_avx2.c -- four outputs at a time, one to each 64-bit lane.
 *
 * Eight words of differences are first added bit by bit in a tree of carry-save adders (Harley and
 * Seal; Mula, Kurz and Lemire 2018), so that only one word in eight is counted, by two nibble
 * look-ups per byte.
 *
 * Samples of a batch take turns for every sixteen outputs, whose weights stay in the cache.
 *
 * Packed weight: [block of 4 outputs][word][4] u64, missing outputs 0.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "../isa.h"
#include "bdense.h"

enum { AVX2_LANES = 4 };

static size_t bdense_avx2_weight_bytes(const bi_step *s)
{
    return ((size_t)s->out_c + AVX2_LANES - 1) / AVX2_LANES * AVX2_LANES * bi_words(s->in_c) * 8;
}

static void bdense_avx2_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_bdense_interleave(s, canonical, packed, AVX2_LANES);
}

/* Add three bits in every position: the sum is returned, the carry has twice its weight. */
BI_TARGET_avx2 static inline __m256i add_bits(__m256i a, __m256i b, __m256i c, __m256i *carry)
{
    __m256i u = _mm256_xor_si256(a, b);
    *carry = _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(u, c));
    return _mm256_xor_si256(u, c);
}

/* Ones in each 64-bit lane. */
BI_TARGET_avx2 static inline __m256i count(__m256i bits)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low);
    __m256i bytes = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(bits, low)),
                                    _mm256_shuffle_epi8(table, high));
    return _mm256_sad_epu8(bytes, _mm256_setzero_si256());
}

BI_TARGET_avx2 static inline __m256i differ(const uint64_t *a, const uint64_t *w, size_t k)
{
    return _mm256_xor_si256(_mm256_set1_epi64x((long long)a[k]),
                            _mm256_loadu_si256((const __m256i *)(w + k * AVX2_LANES)));
}

BI_TARGET_avx2 static inline __m256i count_block(const uint64_t *a, const uint64_t *w, size_t words)
{
    __m256i total = _mm256_setzero_si256(), ones = total, twos = total, fours = total;
    size_t k = 0;
    for (; k + 8 <= words; k += 8) {
        __m256i twos_a, twos_b, fours_a, fours_b, eights;
        ones = add_bits(ones, differ(a, w, k), differ(a, w, k + 1), &twos_a);
        ones = add_bits(ones, differ(a, w, k + 2), differ(a, w, k + 3), &twos_b);
        twos = add_bits(twos, twos_a, twos_b, &fours_a);
        ones = add_bits(ones, differ(a, w, k + 4), differ(a, w, k + 5), &twos_a);
        ones = add_bits(ones, differ(a, w, k + 6), differ(a, w, k + 7), &twos_b);
        twos = add_bits(twos, twos_a, twos_b, &fours_b);
        fours = add_bits(fours, fours_a, fours_b, &eights);
        total = _mm256_add_epi64(total, count(eights));
    }
    if (k > 0) {
        total = _mm256_add_epi64(_mm256_slli_epi64(total, 1), count(fours));
        total = _mm256_add_epi64(_mm256_slli_epi64(total, 1), count(twos));
        total = _mm256_add_epi64(_mm256_slli_epi64(total, 1), count(ones));
    }
    for (; k < words; k++)
        total = _mm256_add_epi64(total, count(differ(a, w, k)));
    return total;
}

BI_TARGET_avx2 static void bdense_avx2_run_batch(const bi_step *s, const bi_pointers *at, size_t samples,
                                     int32_t begin, int32_t end)
{
    size_t words = bi_words(s->in_c);
    int32_t first = begin * BI_BDENSE_BLOCK, last = end * BI_BDENSE_BLOCK;
    last = last < s->out_c ? last : s->out_c;
    for (int32_t o = first; o < last; o += 16) {
        int32_t left = last - o < 16 ? last - o : 16;
        for (size_t n = 0; n < samples; n++) {
            const uint64_t *weight = (const uint64_t *)s->weight + (size_t)o * words;
            int64_t differing[16];
            for (int32_t i = 0; i < left; i += AVX2_LANES, weight += AVX2_LANES * words)
                _mm256_storeu_si256((__m256i *)(differing + i),
                                    count_block(at[n].source, weight, words));
            bi_bdense_finish(s, &at[n], o, left, differing);
        }
    }
}

BI_TARGET_avx2 static void bdense_avx2_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    bdense_avx2_run_batch(s, at, 1, begin, end);
}

const bi_kernel bi_bdense_words_avx2 = {
    .block = 16,
    .weight_bytes = bdense_avx2_weight_bytes,
    .pack_weight = bdense_avx2_pack_weight,
    .run = bdense_avx2_run,
    .run_batch = bdense_avx2_run_batch,
};
#endif
