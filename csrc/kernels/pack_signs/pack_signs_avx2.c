/* pack_signs_avx2.c -- eight signs at a time: compare with 0 (not the sign bit: -0.0 is not
 * negative), then vmovmskps. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "pack_signs.h"

BI_TARGET_avx2 static uint64_t pack_eight(const float *x)
{
    __m256 negative = _mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_setzero_ps(), _CMP_LT_OQ);
    return (uint64_t)(uint32_t)_mm256_movemask_ps(negative);
}

BI_TARGET_avx2 static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t first = (size_t)begin * (size_t)s->in_w, last = (size_t)end * (size_t)s->in_w;
    const float *x = (const float *)at->source + first * (size_t)s->in_c;
    uint64_t *target = (uint64_t *)at->target + first * bi_words(s->in_c);
    for (size_t pixel = first; pixel < last; pixel++)
        for (int32_t c = 0; c < s->in_c; c += 64) {
            int32_t count = s->in_c - c < 64 ? s->in_c - c : 64, i = 0;
            uint64_t word = 0;
            for (; i + 8 <= count; i += 8)
                word |= pack_eight(x + i) << i;
            if (i < count)
                word |= bi_pack_word(x + i, count - i) << i;
            *target++ = word;
            x += count;
        }
}

const bi_kernel bi_pack_signs_avx2 = {.run = run};
#endif
