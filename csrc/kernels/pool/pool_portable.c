/* pool_portable.c -- pool_body.inc for any CPU. */
#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_portable
#define BI_OWN(name) name##_portable
#include "pool_body.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
