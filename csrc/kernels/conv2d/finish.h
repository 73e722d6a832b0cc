/* finish.h -- some outputs of many pixels on their way through the epilogue: what finish_body.inc reads,
 * whatever its vectors. */
#ifndef BITINFER_CONV2D_FINISH_H
#define BITINFER_CONV2D_FINISH_H

#include <string.h>

#include "conv2d.h"

enum { BI_MOST_FINISHED = 64 };

/* Sums of the outputs from `output` on, `outputs` (at most 16, with AVX-512 64) of them, for the pixels
 * from number `first` on; pixel i has sums[apart * i] and what follows, up to a multiple of 16. */
typedef struct {
    const bi_step *step;
    const bi_pointers *at;
    size_t first, count;
    int32_t output, outputs;
    const float *sums; /* of integer layers i32 */
    size_t apart;
    const float *const *shift; /* [count], each in place of the bias, or NULL */
} bi_plane_sums;

/* Parameters of outputs that are no multiple of 16, the missing ones 0. */
typedef float bi_padded_scales[BI_SCALES][BI_MOST_FINISHED];

/* Where those of one parameter are, in whole sixteens. */
static inline const float *bi_sixteens_of(const bi_plane_sums *p, const float *parameter,
                                          const float *neutral, float padded[BI_MOST_FINISHED])
{
    if (parameter == NULL)
        return neutral;
    if (p->outputs % 16 == 0)
        return parameter + p->output;
    memset(padded + p->outputs / 16 * 16, 0, 16 * sizeof *padded);
    memcpy(padded, parameter + p->output, (size_t)p->outputs * sizeof *padded);
    return padded;
}

static inline bi_vector_outputs bi_first_outputs(const bi_plane_sums *p, bi_padded_scales padded)
{
#define SIXTEEN(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
    static const float ones[BI_MOST_FINISHED] = {SIXTEEN(1), SIXTEEN(1), SIXTEEN(1), SIXTEEN(1)};
    static const float nothing[BI_MOST_FINISHED] = {SIXTEEN(-0.0f), SIXTEEN(-0.0f), SIXTEEN(-0.0f),
                                                    SIXTEEN(-0.0f)};
#undef SIXTEEN
    const bi_step *s = p->step;
    size_t number = p->first * (size_t)s->out_c + (size_t)p->output;
    bi_vector_outputs at = {
        .residual = p->at->residual != NULL ? p->at->residual + number : NULL,
        .floats = bi_target_is_signs(s) ? NULL : (float *)p->at->target + number,
        .left = p->outputs,
    };
    const float *const given[BI_SCALES] = {
        [BI_SCALE_ALPHA] = s->alpha,
        [BI_SCALE_BIAS] = s->bias,
        [BI_SCALE_FLOOR] = s->floor,
        [BI_SCALE_SLOPE] = s->slope,
        [BI_SCALE_SHIFT_IN] = s->shift_in,
        [BI_SCALE_SHIFT_OUT] = s->shift_out,
        [BI_SCALE_SIGN_THRESHOLD] = s->sign_threshold,
    };
    for (int i = 0; i < BI_SCALES; i++)
        at.scale[i] = bi_sixteens_of(p, given[i], i == BI_SCALE_ALPHA ? ones : nothing, padded[i]);
    return at;
}

/* Put the signs of the outputs of a pixel; blocks come in ascending order. */
static inline void bi_put_signs(const bi_plane_sums *p, uint64_t *signs, uint64_t bits)
{
    if (p->output % 64 == 0)
        signs[p->output / 64] = bits; /* and 0 up to the end of the word */
    else if (p->output % 16 == 0 && p->outputs <= 16)
        memcpy((unsigned char *)signs + p->output / 8, &bits, 2);
    else
        bi_add_signs(signs, p->output, p->outputs, bits);
}

/* A bit for each of the outputs. */
static inline uint64_t bi_there_of(const bi_plane_sums *p)
{
    return p->outputs == 64 ? ~UINT64_C(0) : (UINT64_C(1) << p->outputs) - 1;
}

static inline uint64_t bi_flips_of(const bi_plane_sums *p)
{
    uint64_t flips = 0;
    for (int32_t o = 0; o < p->outputs; o++)
        flips |= (uint64_t)(p->step->flip[p->output + o] != 0) << o;
    return flips;
}

#endif
