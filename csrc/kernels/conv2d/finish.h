/* finish.h -- 16 outputs of many pixels on their way through the epilogue: what finish_body.inc reads,
 * whatever its vectors. */
#ifndef BITINFER_CONV2D_FINISH_H
#define BITINFER_CONV2D_FINISH_H

#include <string.h>

#include "conv2d.h"

/* Sums of the outputs from `output` on, `outputs` (at most 16) of them, for the pixels from number
 * `first` on; pixel i has sums[apart * i] and what follows. */
typedef struct {
    const bi_step *step;
    const bi_pointers *at;
    size_t first, count;
    int32_t output, outputs;
    const float *sums; /* of integer layers i32 */
    size_t apart;
    const float *const *shift; /* [count][16], in place of the bias, or NULL */
} bi_plane_sums;

/* Parameters of fewer than 16 outputs, the missing ones 0. */
typedef float bi_padded_scales[BI_SCALES][16];

/* Where sixteen of a parameter are. */
static inline const float *bi_sixteen_of(const bi_plane_sums *p, const float *parameter,
                                         const float *neutral, float padded[16])
{
    if (parameter == NULL)
        return neutral;
    if (p->outputs == 16)
        return parameter + p->output;
    memset(padded, 0, 16 * sizeof *padded);
    memcpy(padded, parameter + p->output, (size_t)p->outputs * sizeof *padded);
    return padded;
}

static inline bi_vector_outputs bi_first_outputs(const bi_plane_sums *p, bi_padded_scales padded)
{
    static const float ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const float nothing[16] = {-0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f,
                                      -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f};
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
        at.scale[i] = bi_sixteen_of(p, given[i], i == BI_SCALE_ALPHA ? ones : nothing, padded[i]);
    return at;
}

/* Put the signs of 16 outputs of a pixel; blocks come in ascending order. */
static inline void bi_put_sixteen(const bi_plane_sums *p, uint64_t *signs, unsigned bits)
{
    if (p->output % 64 == 0)
        signs[p->output / 64] = bits; /* and 0 up to the end of the word */
    else if (p->output % 16 == 0)
        memcpy((unsigned char *)signs + p->output / 8, &bits, 2);
    else
        for (int32_t o = 0; o < p->outputs; o++)
            bi_write_sign(signs, p->output + o, bits >> o & 1);
}

static inline unsigned bi_flips_of(const bi_plane_sums *p)
{
    unsigned flips = 0;
    for (int32_t o = 0; o < p->outputs; o++)
        flips |= (unsigned)(p->step->flip[p->output + o] != 0) << o;
    return flips;
}

#endif
