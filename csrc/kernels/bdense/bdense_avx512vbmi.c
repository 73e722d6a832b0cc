/* bdense_avx512vbmi.c -- sixteen outputs at a time, one to each 64-bit lane of two vectors, counted
 * by vpopcntq.  Each word of the source is loaded once for all of them.
 *
 * Packed weight: [block of 16 outputs][word][16] u64, missing outputs 0.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "bdense.h"

enum { LANES = 16 };

static size_t weight_bytes(const bi_step *s)
{
    return ((size_t)s->out_c + LANES - 1) / LANES * LANES * bi_words(s->in_c) * 8;
}

static void pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_bdense_interleave(s, canonical, packed, LANES);
}

BI_TARGET_avx512vbmi static void run(const bi_step *s, const bi_pointers *at, int32_t begin,
                                     int32_t end)
{
    size_t words = bi_words(s->in_c);
    const uint64_t *source = at->source;
    int32_t first = begin * BI_BDENSE_BLOCK, last = end * BI_BDENSE_BLOCK;
    last = last < s->out_c ? last : s->out_c;
    const uint64_t *weight = (const uint64_t *)s->weight + (size_t)first * words;
    for (int32_t o = first; o < last; o += LANES) {
        __m512i total[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (size_t k = 0; k < words; k++, weight += LANES) {
            __m512i a = _mm512_set1_epi64((long long)source[k]);
            for (int v = 0; v < 2; v++) {
                __m512i differ = _mm512_xor_si512(a, _mm512_loadu_si512(weight + 8 * v));
                total[v] = _mm512_add_epi64(total[v], _mm512_popcnt_epi64(differ));
            }
        }
        int64_t differing[LANES];
        _mm512_storeu_si512(differing, total[0]);
        _mm512_storeu_si512(differing + 8, total[1]);
        bi_bdense_finish(s, at, o, last - o < LANES ? last - o : LANES, differing);
    }
}

const bi_kernel bi_bdense_avx512vbmi = {
    .weight_bytes = weight_bytes,
    .pack_weight = pack_weight,
    .run = run,
};
#endif
