/* bconv2d_popcnt.c -- bconv2d_scalar.inc with the popcnt instruction. */
#if defined(__x86_64__)
#define BI_TARGET BI_TARGET_popcnt
#define BI_NAME(operation) bi_##operation##_scalar_popcnt
#define BI_OWN(name) name##_bconv2d_popcnt
#include "bconv2d_scalar.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#endif
