/* epilogue.h -- what becomes of the sums of a binary, float or integer layer.
 *
 * Floats, every operation rounded on its own, each where the step has it
 * (src/bitinfer/numerics.py):
 *     y = max(float(sum), floor[o])
 *     y = y * alpha[o] * beta + bias[o] + residual[o]
 *     y = activation(y)
 * Packed signs of the floats, where step->sign_threshold is given: instead of the floats, or
 * (has_signs) beside them:
 *     bit = (y < sign_threshold[o]) != flip[o]
 * Packed signs of integer sums, where step->threshold is given; nothing else of the above then
 * counts:
 *     bit = (sum < threshold[o]) != flip[o]
 */
#ifndef BITINFER_EPILOGUE_H
#define BITINFER_EPILOGUE_H

#include <math.h>

#include "kernel.h"

/* The last part of the chain, for output o. */
static inline float bi_activate(const bi_step *s, int32_t o, float y)
{
    switch ((bi_activation)s->activation) {
    case BI_ACTIVATION_NONE: return y;
    case BI_ACTIVATION_RELU: return y > 0 ? y : 0;
    case BI_ACTIVATION_PRELU: return y < 0 ? y * s->slope[o] : y;
    case BI_ACTIVATION_CLIP: y = y > s->low ? y : s->low; return y < s->high ? y : s->high;
    case BI_ACTIVATION_RPRELU:
        y += s->shift_in[o];
        y = y < 0 ? y * s->slope[o] : y;
        return y + s->shift_out[o];
    case BI_ACTIVATION_SIGMOID: return (float)(1 / (1 + exp(-(double)y)));
    }
    return NAN;
}

/* One pixel of the output, and what else its epilogue reads. */
typedef struct {
    float *floats;            /* [out_c], or NULL: only signs are wanted */
    uint64_t *signs;          /* [words(out_c)], or NULL: only floats are wanted */
    const float *residual;    /* [out_c], or NULL */
    const float *beta;        /* the scale of these outputs, or NULL */
} bi_output_pixel;

/* Whether the target is packed signs. */
static inline int bi_target_is_signs(const bi_step *s)
{
    return s->threshold != NULL || (s->sign_threshold != NULL && !s->has_signs);
}

/* Pixel number `pixel` of a step whose beta map, if any, has the element `scale` for it. */
static inline bi_output_pixel bi_output_at(const bi_step *s, const bi_pointers *at, size_t pixel,
                                           size_t scale)
{
    size_t channels = (size_t)s->out_c, words = bi_words(s->out_c);
    size_t residual = pixel * (channels + (size_t)s->residual_gap);
    bi_output_pixel p = {
        .residual = at->residual != NULL ? at->residual + residual : NULL,
        .beta = at->beta != NULL ? at->beta + scale : NULL,
    };
    if (bi_target_is_signs(s))
        p.signs = (uint64_t *)at->target + pixel * words;
    else {
        p.floats = (float *)at->target + pixel * (channels + (size_t)s->target_gap);
        p.signs = at->signs != NULL ? at->signs + pixel * words : NULL;
    }
    return p;
}

/* Set bit o of packed signs; must come in ascending order, beginning with 0. */
static inline void bi_write_sign(uint64_t *signs, int32_t o, int bit)
{
    if (o % 64 == 0)
        signs[o / 64] = (uint64_t)bit;
    else
        signs[o / 64] |= (uint64_t)bit << (o % 64);
}

/* The same for the `count` bits from o on, at most 64; those above are 0. */
static inline void bi_add_signs(uint64_t *signs, int32_t o, int32_t count, uint64_t bits)
{
    int32_t shift = o % 64;
    signs += o / 64;
    *signs = shift == 0 ? bits : *signs | bits << shift;
    if (shift + count > 64)
        signs[1] = bits >> (64 - shift);
}

/* Write `count` results, the outputs from o on, from sums that are floats (and spoil them).
 * Outputs of a packed pixel must be written in ascending order, beginning with 0. */
static inline void bi_finish_floats(const bi_step *s, const bi_output_pixel *p, int32_t o,
                                    int32_t count, float *y)
{
    if (s->floor != NULL)    /* stage by stage, so that the compiler may use vectors */
        for (int32_t i = 0; i < count; i++)
            y[i] = y[i] > s->floor[o + i] ? y[i] : s->floor[o + i];
    if (s->alpha != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] *= s->alpha[o + i];
    if (p->beta != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] *= *p->beta;
    if (s->bias != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] += s->bias[o + i];
    if (p->residual != NULL)
        for (int32_t i = 0; i < count; i++)
            y[i] += p->residual[o + i];
    if (s->activation != BI_ACTIVATION_NONE)
        for (int32_t i = 0; i < count; i++)
            y[i] = bi_activate(s, o + i, y[i]);
    for (int32_t first = 0; first < count && p->signs != NULL; first += 64) {
        const float *limit = s->sign_threshold + o + first;
        const uint8_t *flip = s->flip + o + first;
        int32_t now = count - first < 64 ? count - first : 64;
        uint64_t bits = 0;
        for (int32_t i = 0; i < now; i++)
            bits |= (uint64_t)((y[first + i] < limit[i]) != flip[i]) << i;
        bi_add_signs(p->signs, o + first, now, bits);
    }
    if (p->floats != NULL)
        for (int32_t i = 0; i < count; i++)
            p->floats[o + i] = y[i];
}

/* The same from sums that are integers. */
static inline void bi_finish(const bi_step *s, const bi_output_pixel *p, int32_t o, int32_t count,
                             const int32_t *sum)
{
    enum { PIECE = 32 };
    for (int32_t first = 0; first < count && s->threshold != NULL; first += 64) {
        const int32_t *limit = s->threshold + o + first;
        const uint8_t *flip = s->flip + o + first;
        int32_t now = count - first < 64 ? count - first : 64;
        uint64_t bits = 0;
        for (int32_t i = 0; i < now; i++)
            bits |= (uint64_t)((sum[first + i] < limit[i]) != flip[i]) << i;
        bi_add_signs(p->signs, o + first, now, bits);
    }
    if (s->threshold != NULL)
        return;
    for (int32_t first = 0; first < count; first += PIECE) {
        int32_t now = count - first < PIECE ? count - first : PIECE;
        float y[PIECE];
        for (int32_t i = 0; i < now; i++)
            y[i] = (float)sum[first + i];
        bi_finish_floats(s, p, o + first, now, y);
    }
}

/* The floats that the chain reads for every output.  Vector kernels keep copies, padded to whole
 * vectors, with values that change nothing where the step has none. */
typedef enum {
    BI_SCALE_ALPHA,
    BI_SCALE_BIAS,
    BI_SCALE_FLOOR,
    BI_SCALE_SLOPE,
    BI_SCALE_SHIFT_IN,
    BI_SCALE_SHIFT_OUT,
    BI_SCALE_SIGN_THRESHOLD,
    BI_SCALES,
} bi_scale;

static inline float bi_scale_of(const bi_step *s, bi_scale which, int32_t o)
{
    switch (which) {
    case BI_SCALE_ALPHA: return s->alpha != NULL ? s->alpha[o] : 1;
    case BI_SCALE_BIAS: return s->bias != NULL ? s->bias[o] : -0.0f;    /* -0 + -0 is -0 */
    case BI_SCALE_FLOOR: return s->floor != NULL ? s->floor[o] : -INFINITY;
    case BI_SCALE_SLOPE: return s->slope != NULL ? s->slope[o] : 1;
    case BI_SCALE_SHIFT_IN: return s->shift_in != NULL ? s->shift_in[o] : 0;
    case BI_SCALE_SHIFT_OUT: return s->shift_out != NULL ? s->shift_out[o] : 0;
    case BI_SCALE_SIGN_THRESHOLD: return s->sign_threshold != NULL ? s->sign_threshold[o] : 0;
    case BI_SCALES: break;
    }
    return NAN;
}

/* Outputs of one pixel that vectors finish (epilogue_body.inc), and what the chain reads for them. */
typedef struct {
    const float *scale[BI_SCALES]; /* of the first of them, whole vectors; what the step has not may
                                    * be NULL, except for alpha and bias */
    const float *beta; /* or NULL */
    const float *residual; /* of the first of them, or NULL */
    float *floats; /* of the first of them, or NULL */
    int32_t left; /* how many there are from the first on */
} bi_vector_outputs;

/* All scales of outputs whose BI_SCALE_ALPHA begins at `first`, `step` floats from one to the next. */
#define BI_SCALES_FROM(first, step)                                                \
    {                                                                              \
        [BI_SCALE_ALPHA] = (first) + BI_SCALE_ALPHA * (step),                      \
        [BI_SCALE_BIAS] = (first) + BI_SCALE_BIAS * (step),                        \
        [BI_SCALE_FLOOR] = (first) + BI_SCALE_FLOOR * (step),                      \
        [BI_SCALE_SLOPE] = (first) + BI_SCALE_SLOPE * (step),                      \
        [BI_SCALE_SHIFT_IN] = (first) + BI_SCALE_SHIFT_IN * (step),                \
        [BI_SCALE_SHIFT_OUT] = (first) + BI_SCALE_SHIFT_OUT * (step),              \
        [BI_SCALE_SIGN_THRESHOLD] = (first) + BI_SCALE_SIGN_THRESHOLD * (step),    \
    }

/* The last activation of the chain, one by one. */
void bi_sigmoid(float *y, int32_t count);

/* Which part of the chain a vector kernel is compiled for. */
typedef enum {
    BI_PLAIN_FLOATS, /* floats, scaled by alpha and bias alone */
    BI_SHORTCUT, /* floats and signs of them beside, after adding a residual: a layer of
                         * Bi-Real-Net (Liu et al. 2018) */
    BI_ANY_OUTPUT, /* floats, signs of them, or both */
    BI_SIGNS, /* signs of the integer sums */
    BI_OUTPUTS,
} bi_output;

static inline bi_output bi_output_of(const bi_step *s)
{
    if (s->threshold != NULL)
        return BI_SIGNS;
    if (s->floor != NULL || s->has_beta || s->activation != BI_ACTIVATION_NONE)
        return BI_ANY_OUTPUT;
    if (s->sign_threshold == NULL)
        return s->has_residual ? BI_ANY_OUTPUT : BI_PLAIN_FLOATS;
    return s->has_residual && s->has_signs ? BI_SHORTCUT : BI_ANY_OUTPUT;
}

/* Bytes of one pixel of the target. */
static inline size_t bi_target_pixel_bytes(const bi_step *s)
{
    return bi_target_is_signs(s) ? bi_words(s->out_c) * 8 : (size_t)s->out_c * 4;
}

#endif
