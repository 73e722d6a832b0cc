/* pack_signs_portable.c -- one sign at a time. */
#include "pack_signs.h"

BI_DEFINE_PACK_SIGNS(portable, bi_pack_word)

const bi_kernel bi_pack_signs_scalar_portable = {.block = 1, .run = pack_signs_portable};
