/* vectors_portable.h -- of the vocabulary that vectors_avx2.h describes, what activation_body.inc
 * names; in C that every compiler understands.
 */
#ifndef BITINFER_VECTORS_PORTABLE_H
#define BITINFER_VECTORS_PORTABLE_H

#include <stdint.h>

#include "../isa.h"

typedef float bi_v_floats_portable __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t bi_v_masks_portable __attribute__((vector_size(16), aligned(4), may_alias));
enum { bi_v_lanes_portable = 4 };

#define BI_HERE static inline __attribute__((always_inline))
#define BI_FLOATS bi_v_floats_portable

/* x where the mask is set, else y. */
BI_HERE BI_FLOATS bi_v_select_portable(bi_v_masks_portable mask, BI_FLOATS x, BI_FLOATS y)
{
    return (BI_FLOATS)(((bi_v_masks_portable)x & mask) | ((bi_v_masks_portable)y & ~mask));
}

BI_HERE BI_FLOATS bi_v_load_portable(const float *from) { return *(const BI_FLOATS *)from; }
BI_HERE void bi_v_store_portable(float *to, BI_FLOATS y) { *(BI_FLOATS *)to = y; }
BI_HERE BI_FLOATS bi_v_set_portable(float x) { return (BI_FLOATS){x, x, x, x}; }
BI_HERE BI_FLOATS bi_v_add_portable(BI_FLOATS x, BI_FLOATS y) { return x + y; }
BI_HERE BI_FLOATS bi_v_mul_portable(BI_FLOATS x, BI_FLOATS y) { return x * y; }
BI_HERE BI_FLOATS bi_v_greater_portable(BI_FLOATS x, BI_FLOATS y)
{
    return bi_v_select_portable(x > y, x, y);
}
BI_HERE BI_FLOATS bi_v_less_portable(BI_FLOATS x, BI_FLOATS y)
{
    return bi_v_select_portable(x < y, x, y);
}
BI_HERE BI_FLOATS bi_v_bend_portable(BI_FLOATS y, BI_FLOATS slope)
{
    return bi_v_select_portable(y < bi_v_set_portable(0), y * slope, y);
}

#undef BI_FLOATS
#undef BI_HERE
#endif
