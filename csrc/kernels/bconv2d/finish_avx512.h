/* finish_avx512.h -- the epilogue (../epilogue.h) of sixteen outputs of one pixel. */
#ifndef BITINFER_FINISH_AVX512_H
#define BITINFER_FINISH_AVX512_H

#include <immintrin.h>

#include "../isa.h"
#include "lookup.h"

/* Where sixteen outputs are written, and what they read that is not padded. */
typedef struct {
    __mmask16 here;           /* those that there are */
    const float *scales;      /* BI_SCALE_ALPHA of the first of them... */
    size_t outputs;           /* ...and how far behind it the next bi_scale is */
    const float *beta;        /* or NULL */
    const float *residual;    /* of the first of them, or NULL */
    float *floats;            /* of the first of them, or NULL */
} bi_sixteen;

BI_TARGET_avx512bw static inline __attribute__((always_inline)) __m512
bi_load_scale(const bi_sixteen *at, bi_scale which)
{
    return _mm512_loadu_ps(at->scales + (size_t)which * at->outputs);
}

BI_TARGET_avx512bw static inline __attribute__((always_inline)) __m512
bi_activate_sixteen(const bi_step *s, const bi_sixteen *at, __m512 y)
{
    const __m512 zero = _mm512_setzero_ps();
    switch ((bi_activation)s->activation) {
    case BI_ACTIVATION_NONE: return y;
    case BI_ACTIVATION_RELU: return _mm512_max_ps(y, zero);
    case BI_ACTIVATION_PRELU:
        return _mm512_mask_mul_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), y,
                                  bi_load_scale(at, BI_SCALE_SLOPE));
    case BI_ACTIVATION_CLIP:
        y = _mm512_max_ps(y, _mm512_set1_ps(s->low));
        return _mm512_min_ps(y, _mm512_set1_ps(s->high));
    case BI_ACTIVATION_RPRELU:
        y = _mm512_add_ps(y, bi_load_scale(at, BI_SCALE_SHIFT_IN));
        y = _mm512_mask_mul_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), y,
                               bi_load_scale(at, BI_SCALE_SLOPE));
        return _mm512_add_ps(y, bi_load_scale(at, BI_SCALE_SHIFT_OUT));
    case BI_ACTIVATION_SIGMOID: {
        float values[16];
        _mm512_storeu_ps(values, y);
        bi_lookup_sigmoid(values, 16);
        return _mm512_loadu_ps(values);
    }
    }
    return _mm512_set1_ps(NAN);
}

/* Finish the sums y; return which outputs of `here` lie below their sign thresholds, if the step
 * has any. */
BI_TARGET_avx512bw static inline __attribute__((always_inline)) uint32_t
bi_finish_sixteen(const bi_step *s, const bi_sixteen *at, __m512i dot, bi_output output)
{
    int any = output == BI_ANY_OUTPUT, shortcut = output == BI_SHORTCUT;
    uint32_t below = 0;
    __m512 y = _mm512_cvtepi32_ps(dot);
    if (any && s->floor != NULL)
        y = _mm512_max_ps(y, bi_load_scale(at, BI_SCALE_FLOOR));
    y = _mm512_mul_ps(y, bi_load_scale(at, BI_SCALE_ALPHA));
    if (any && at->beta != NULL)
        y = _mm512_mul_ps(y, _mm512_set1_ps(*at->beta));
    y = _mm512_add_ps(y, bi_load_scale(at, BI_SCALE_BIAS));
    if (shortcut || (any && at->residual != NULL))
        y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(at->here, at->residual));
    if (any && s->activation != BI_ACTIVATION_NONE)
        y = bi_activate_sixteen(s, at, y);
    if (shortcut || (any && s->sign_threshold != NULL))
        below = _mm512_mask_cmp_ps_mask(at->here, y,
                                        bi_load_scale(at, BI_SCALE_SIGN_THRESHOLD), _CMP_LT_OQ);
    if (!any || at->floats != NULL)
        _mm512_mask_storeu_ps(at->floats, at->here, y);
    return below;
}

#endif
