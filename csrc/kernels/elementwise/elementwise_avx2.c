/* elementwise_avx2.c -- elementwise_body.inc with 256-bit vectors. */
#if defined(__x86_64__)
#include "../vectors/vectors_avx2.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_NAME(operation) bi_##operation##_vectors_avx2
#define BI_OWN(name) name##_avx2
#define V(operation) bi_v_##operation##_avx2
#include "elementwise_body.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef V
#endif
