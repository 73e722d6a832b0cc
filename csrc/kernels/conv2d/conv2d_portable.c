/* conv2d_portable.c -- conv2d_body.inc for any CPU. */

#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_portable
#include "conv2d_body.inc"

