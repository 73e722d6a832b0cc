/* pack_signs_portable.c -- one sign at a time. */
#include "pack_signs.h"

typedef float bi_zeros_portable;

static inline float sum_portable(const bi_zeros_portable *zeros) { return *zeros; }

BI_DEFINE_PACK_SIGNS(portable, bi_pack_word, sum_portable)

const bi_kernel bi_pack_signs_scalar_portable = {
    .block = 1, .looks = bi_pack_signs_looks, .run = pack_signs_portable};
