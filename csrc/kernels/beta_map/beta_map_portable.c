/* beta_map_portable.c -- beta_map_body.inc for any CPU. */

#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_vectors_portable
#define BI_OWN(name) name##_beta_map_portable
#include "beta_map_body.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
