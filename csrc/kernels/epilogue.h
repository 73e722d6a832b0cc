/* epilogue.h -- what becomes of the integer results of a binary layer.
 *
 * Float target (src/bitinfer/numerics.py: every operation is rounded on its own):
 *     y = activation(float(dot) * alpha[o] * beta + bias[o] + residual[o])
 * Packed signs, where step->threshold is given:
 *     bit = (dot < threshold[o]) != flip[o]
 */
#ifndef BITINFER_EPILOGUE_H
#define BITINFER_EPILOGUE_H

#include "kernel.h"

/* The last part of the chain, for output o. */
static inline float bi_activate(const bi_step *s, int32_t o, float y)
{
    switch (s->activation) {
    case BI_ACTIVATION_RELU: return y > 0 ? y : 0;
    case BI_ACTIVATION_PRELU: return y < 0 ? y * s->slope[o] : y;
    case BI_ACTIVATION_CLIP:
        y = y > s->low ? y : s->low;
        return y < s->high ? y : s->high;
    default: return y;
    }
}

/* Write `count` results, the outputs from o on, of one pixel; target is the pixel's first float or
 * word, residual its first float (or NULL), beta its scale for these outputs (or NULL).  Outputs
 * of a packed pixel must be written in ascending order, beginning with 0. */
static inline void bi_finish(const bi_step *s, void *target, const float *beta,
                             const float *residual, int32_t o, int32_t count, const int32_t *dot)
{
    if (s->threshold != NULL) {
        uint64_t *words = target;
        for (int32_t i = 0; i < count; i++) {
            int32_t c = o + i;
            uint64_t bit = (uint64_t)((dot[i] < s->threshold[c]) != s->flip[c]);
            if (c % 64 == 0)
                words[c / 64] = bit;
            else
                words[c / 64] |= bit << (c % 64);
        }
        return;
    }
    float *y = (float *)target + o;    /* stage by stage, so that the compiler may use vectors */
    for (int32_t i = 0; i < count; i++)
        y[i] = (float)dot[i];
    if (s->alpha != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] *= s->alpha[o + i];
    if (beta != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] *= *beta;
    if (s->bias != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] += s->bias[o + i];
    if (residual != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] += residual[o + i];
    if (s->activation != BI_ACTIVATION_NONE)
        for (int32_t i = 0; i < count; i++)
            y[i] = bi_activate(s, o + i, y[i]);
}

/* Bytes of one pixel of the target. */
static inline size_t bi_target_pixel_bytes(const bi_step *s)
{
    return s->threshold != NULL ? bi_words(s->out_c) * 8 : (size_t)s->out_c * 4;
}

#endif
