/* bdense_portable.c -- bdense_scalar.inc for any CPU. */

#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_scalar_portable
#define BI_OWN(name) name##_bdense_portable
#include "bdense_scalar.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
