/* pack_signs.h -- floats to signs, by the bit convention (src/bitinfer/bits.py).
 *
 *   bit c of target[y][x] = source[y][x][c] < 0        so 0, -0.0 and NaN give 0 (+1)
 *
 * source  [in_h][in_w][in_c] f32;  target [in_h][in_w][words(in_c)] u64, stray bits 0
 * rows    in_h
 */
#ifndef BITINFER_PACK_SIGNS_H
#define BITINFER_PACK_SIGNS_H

#include "../kernel.h"

/* The word of up to 64 signs. */
static inline uint64_t bi_pack_word(const float *x, int32_t count)
{
    uint64_t word = 0;
    for (int32_t i = 0; i < count; i++)
        word |= (uint64_t)(x[i] < 0) << i;
    return word;
}

#endif
