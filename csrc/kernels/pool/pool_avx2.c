/* pool_avx2.c -- pool_body.inc with 256-bit vectors. */
#if defined(__x86_64__)
#include <immintrin.h>

#define BI_TARGET BI_TARGET_avx2
#define BI_NAME(operation) bi_##operation##_avx2
#define BI_OWN(name) name##_avx2
#define BI_MAX(a, b) ((f32x8)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define BI_EITHER_IS_NAN(a, b) \
    ((i32x8)_mm256_cmp_ps((__m256)(a), (__m256)(b), _CMP_UNORD_Q))
#include "pool_body.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#endif
