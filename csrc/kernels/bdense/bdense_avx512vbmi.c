/* bdense_avx512vbmi.c -- sixteen outputs at a time, one to each 64-bit lane of two vectors, counted
 * by vpopcntq.  Each word of the source is loaded once for all of them, and the weights once for
 * four samples of a batch.
 *
 * Packed weight: [block of 16 outputs][word][16] u64, missing outputs 0.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "../unroll.h"
#include "bdense.h"

enum { AVX512_LANES = 16, SAMPLES = 4 };

static size_t bdense_avx512vbmi_weight_bytes(const bi_step *s)
{
    return ((size_t)s->out_c + AVX512_LANES - 1) / AVX512_LANES * AVX512_LANES * bi_words(s->in_c) *
           8;
}

static void bdense_avx512vbmi_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_bdense_interleave(s, canonical, packed, AVX512_LANES);
}

/* Write sixteen outputs, from o on, of `samples` samples (a constant where this is inlined). */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
count_samples(const bi_step *s, const bi_pointers *at, int samples, int32_t o, int32_t count)
{
    size_t words = bi_words(s->in_c);
    const uint64_t *weight = (const uint64_t *)s->weight + (size_t)o * words;
    const uint64_t *source[SAMPLES];
    __m512i total[SAMPLES][2];
    BI_UNROLL for (int n = 0; n < samples; n++) {
        source[n] = at[n].source;
        total[n][0] = total[n][1] = _mm512_setzero_si512();
    }
    for (size_t k = 0; k < words; k++, weight += AVX512_LANES) {
        __m512i low = _mm512_loadu_si512(weight), high = _mm512_loadu_si512(weight + 8);
        BI_UNROLL for (int n = 0; n < samples; n++) {
            __m512i a = _mm512_set1_epi64((long long)source[n][k]);
            total[n][0] = _mm512_add_epi64(total[n][0],
                                           _mm512_popcnt_epi64(_mm512_xor_si512(a, low)));
            total[n][1] = _mm512_add_epi64(total[n][1],
                                           _mm512_popcnt_epi64(_mm512_xor_si512(a, high)));
        }
    }
    BI_UNROLL for (int n = 0; n < samples; n++) {
        int64_t differing[AVX512_LANES];
        _mm512_storeu_si512(differing, total[n][0]);
        _mm512_storeu_si512(differing + 8, total[n][1]);
        bi_bdense_finish(s, &at[n], o, count, differing);
    }
}

BI_TARGET_avx512vbmi static void bdense_avx512vbmi_run_batch(const bi_step *s, const bi_pointers *at, size_t samples,
                                           int32_t begin, int32_t end)
{
    int32_t last = end * BI_BDENSE_BLOCK < s->out_c ? end * BI_BDENSE_BLOCK : s->out_c;
    for (int32_t o = begin * BI_BDENSE_BLOCK; o < last; o += AVX512_LANES) {
        int32_t count = last - o < AVX512_LANES ? last - o : AVX512_LANES;
        size_t n = 0;
        for (; n + SAMPLES <= samples; n += SAMPLES)
            count_samples(s, at + n, SAMPLES, o, count);
        for (; n < samples; n++)
            count_samples(s, at + n, 1, o, count);
    }
}

BI_TARGET_avx512vbmi static void bdense_avx512vbmi_run(const bi_step *s, const bi_pointers *at, int32_t begin,
                                     int32_t end)
{
    bdense_avx512vbmi_run_batch(s, at, 1, begin, end);
}

const bi_kernel bi_bdense_words_avx512vbmi = {
    .block = AVX512_LANES,
    .weight_bytes = bdense_avx512vbmi_weight_bytes,
    .pack_weight = bdense_avx512vbmi_pack_weight,
    .run = bdense_avx512vbmi_run,
    .run_batch = bdense_avx512vbmi_run_batch,
};
#endif
