/* pool_portable.c -- pool_body.inc for any CPU. */
#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_portable
#include "pool_body.inc"
