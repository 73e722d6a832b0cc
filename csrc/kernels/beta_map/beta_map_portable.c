/* beta_map_portable.c -- beta_map_body.inc for any CPU. */

#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_vectors_portable
#include "beta_map_body.inc"

