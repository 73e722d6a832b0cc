/* pack_signs_avx512bw.c -- sixteen signs to a comparison, whose result is a mask already. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "../unroll.h"
#include "pack_signs.h"

/* Four sums, so that an addition need not wait for the last. */
typedef struct {
    __m512 sums[4];
} bi_zeros_avx512bw;

BI_TARGET_avx512bw static inline float sum_avx512bw(const bi_zeros_avx512bw *zeros)
{
    const __m512 *sums = zeros->sums;
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

BI_TARGET_avx512bw static inline __attribute__((always_inline)) uint64_t
pack_word_avx512bw(const void *source, const float *threshold, int32_t count, bi_pack_type type,
                   bi_zeros_avx512bw *zeros)
{
    const char *bytes = source;
    uint64_t word = 0;
    BI_UNROLL for (int k = 0; k < 4; k++) {
        int32_t i = 16 * k;
        if (i >= count)
            break;
        __mmask16 here = count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
        __m512 x;
        if (type == BI_FROM_FLOAT)
            x = _mm512_maskz_loadu_ps(here, (const float *)source + i);
        else if (type == BI_FROM_U8)
            x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(here, bytes + i)));
        else
            x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(here, bytes + i)));
        __m512 t = threshold != NULL ? _mm512_maskz_loadu_ps(here, threshold + i)
                                     : _mm512_setzero_ps();
        word |= (uint64_t)_mm512_mask_cmp_ps_mask(here, x, t, _CMP_LT_OQ) << i;
        if (zeros != NULL)
            zeros->sums[k] = _mm512_fmadd_ps(x, _mm512_setzero_ps(), zeros->sums[k]);
    }
    return word;
}

BI_DEFINE_PACK_SIGNS(avx512bw, pack_word_avx512bw, sum_avx512bw)

const bi_kernel bi_pack_signs_compare_avx512bw = {.block = 16, .looks = bi_pack_signs_looks, .run = pack_signs_avx512bw};
#endif
