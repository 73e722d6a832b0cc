/* finish_avx512.h -- the epilogue of up to 64 outputs of many pixels, as vectors of AVX-512. */
#ifndef BITINFER_CONV2D_FINISH_AVX512_H
#define BITINFER_CONV2D_FINISH_AVX512_H

#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "finish.h"

BI_TARGET_avx512bw static inline __m512 bi_load_integers_avx512(const float *from)
{
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(from));
}

BI_TARGET_avx512bw static inline unsigned bi_integers_below_avx512(const float *sums,
                                                                   const int32_t *thresholds)
{
    return _mm512_cmplt_epi32_mask(_mm512_loadu_si512(sums), _mm512_loadu_si512(thresholds));
}

#define BI_TARGET BI_TARGET_avx512bw
#define BI_OWN(name) bi_##name##_conv2d_avx512
#define V(operation) bi_v_##operation##_avx512
#define BI_LOAD_INTEGERS bi_load_integers_avx512
#define BI_BELOW bi_integers_below_avx512
#include "finish_body.inc"

/* Two and four vectors, of which the last need not be full. */
BI_TARGET_avx512bw static inline void bi_finish_32_avx512(const bi_plane_sums *p)
{
    bi_finish_vectors_conv2d_avx512(p, 2);
}

BI_TARGET_avx512bw static inline void bi_finish_64_avx512(const bi_plane_sums *p)
{
    bi_finish_vectors_conv2d_avx512(p, 4);
}

#endif
