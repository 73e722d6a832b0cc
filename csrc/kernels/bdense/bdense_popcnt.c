/* bdense_popcnt.c -- bdense_scalar.inc with the popcnt instruction. */
#if defined(__x86_64__)
#define BI_TARGET BI_TARGET_popcnt
#define BI_NAME(operation) bi_##operation##_scalar_popcnt
#define BI_OWN(name) name##_bdense_popcnt
#include "bdense_scalar.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#endif
