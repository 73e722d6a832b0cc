/* bdense.h -- product of a matrix of signs with a vector of signs.
 *
 *   dot[o]    = in_c - 2 * popcount(source ^ weight[o])
 *   target[o] = float(dot) * alpha[o] * beta[0] + bias[o]                  (numerics.py: the order)
 *
 * source  [words(in_c)] u64;  weight canonical, [out_c][words(in_c)] u64; stray bits 0 in both
 * beta    [1] f32, or NULL;  alpha, bias [out_c] f32, or NULL;  target [out_c] f32
 * rows    out_c
 */
#ifndef BITINFER_BDENSE_H
#define BITINFER_BDENSE_H

#include "../kernel.h"

static inline void bi_bdense_finish(const bi_step *s, const bi_pointers *at, int32_t o,
                                    int32_t differ)
{
    float y = (float)(s->in_c - 2 * differ);
    if (s->alpha != NULL)
        y *= s->alpha[o];
    if (at->beta != NULL)
        y *= at->beta[0];
    if (s->bias != NULL)
        y += s->bias[o];
    ((float *)at->target)[o] = y;
}

#endif
