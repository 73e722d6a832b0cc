/* finish_avx2.h -- the epilogue of 16 outputs of many pixels, as two vectors of AVX2. */
#ifndef BITINFER_CONV2D_FINISH_AVX2_H
#define BITINFER_CONV2D_FINISH_AVX2_H

#include "../vectors/vectors_avx2.h"
#include "finish.h"

BI_TARGET_avx2 static inline __m256 bi_load_integers_avx2(const float *from)
{
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

BI_TARGET_avx2 static inline unsigned bi_integers_below_avx2(const float *sums,
                                                             const int32_t *thresholds)
{
    unsigned bits = 0;
    BI_UNROLL for (int v = 0; v < 2; v++)
    {
        __m256i sum = _mm256_loadu_si256((const __m256i *)(const void *)(sums + 8 * v));
        __m256i limit = _mm256_loadu_si256((const __m256i *)(thresholds + 8 * v));
        __m256 below = _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, sum));
        bits |= (unsigned)_mm256_movemask_ps(below) << (8 * v);
    }
    return bits;
}

#define BI_TARGET BI_TARGET_avx2
#define BI_OWN(name) bi_##name##_conv2d_avx2
#define V(operation) bi_v_##operation##_avx2
#define BI_LOAD_INTEGERS bi_load_integers_avx2
#define BI_BELOW bi_integers_below_avx2
#include "finish_body.inc"

#endif
