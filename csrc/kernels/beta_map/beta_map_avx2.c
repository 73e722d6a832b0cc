/* beta_map_avx2.c -- beta_map_body.inc with 256-bit vectors. */
#if defined(__x86_64__)
#define BI_TARGET BI_TARGET_avx2
#define BI_NAME(operation) bi_##operation##_vectors_avx2
#define BI_OWN(name) name##_beta_map_avx2
#include "beta_map_body.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#endif
