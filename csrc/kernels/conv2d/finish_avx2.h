/* finish_avx2.h -- the epilogue (../epilogue_body.inc) of 16 outputs of many pixels. */
#ifndef BITINFER_CONV2D_FINISH_AVX2_H
#define BITINFER_CONV2D_FINISH_AVX2_H

#include "../vectors/vectors_avx2.h"
#include "conv2d.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_OWN(name) bi_##name##_conv2d_avx2
#define V(operation) bi_v_##operation##_avx2
#include "../epilogue_body.inc"

/* Sums of the outputs from `output` on, `outputs` (at most 16) of them, for the pixels from number
 * `first` on; pixel i has sums[16 * i]. */
typedef struct {
    const bi_step *step;
    const bi_pointers *at;
    size_t first, count;
    int32_t output, outputs;
    const float *sums; /* of integer layers i32 */
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
        signs[p->output / 64] = bits;    /* and 0 up to the end of the word */
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

/* Signs of integer sums, a bit for each below its threshold. */
BI_TARGET_avx2 static inline void bi_write_integer_signs(const bi_plane_sums *p)
{
    int32_t padded[16] = {0};
    memcpy(padded, p->step->threshold + p->output, (size_t)p->outputs * sizeof *padded);
    __m256i low = _mm256_loadu_si256((const __m256i *)padded);
    __m256i high = _mm256_loadu_si256((const __m256i *)(padded + 8));
    unsigned flips = bi_flips_of(p), there = (1u << p->outputs) - 1;
    size_t words = bi_words(p->step->out_c);
    uint64_t *signs = (uint64_t *)p->at->target + p->first * words;
    for (size_t i = 0; i < p->count; i++, signs += words) {
        const __m256i *sum = (const __m256i *)(const void *)(p->sums + 16 * i);
        __m256i below_low = _mm256_cmpgt_epi32(low, _mm256_loadu_si256(sum));
        __m256i below_high = _mm256_cmpgt_epi32(high, _mm256_loadu_si256(sum + 1));
        unsigned bits = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(below_low)) |
                        (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(below_high)) << 8;
        bi_put_sixteen(p, signs, (bits ^ flips) & there);
    }
}

/* Every pixel; all but p is constant where this is inlined.  `direct`: no floor and no residual, and
 * with BI_ANY_OUTPUT signs alone. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
bi_finish_each(const bi_plane_sums *p, bi_output output, bi_activation kind, int direct, int scaled,
               int integer)
{
    bi_step copy = *p->step;    /* which no store can change */
    const bi_step *s = &copy;
    bi_padded_scales padded;
    bi_vector_outputs at = bi_first_outputs(p, padded);
    if (direct) {
        copy.floor = at.residual = NULL;
        at.floats = output == BI_ANY_OUTPUT ? NULL : at.floats;
    }
    size_t words = bi_words(s->out_c), channels = (size_t)s->out_c;
    uint64_t *signs = bi_target_is_signs(s) ? (uint64_t *)p->at->target : p->at->signs;
    int has_signs = output == BI_ANY_OUTPUT && (direct || signs != NULL);
    unsigned flips = has_signs ? bi_flips_of(p) : 0, there = (1u << p->outputs) - 1;
    signs = has_signs ? signs + p->first * words : NULL;
    for (size_t i = 0; i < p->count; i++) {
        const float *sum = p->sums + 16 * i;
        __m256 y[2] = {_mm256_loadu_ps(sum), _mm256_loadu_ps(sum + 8)};
        if (integer)
            BI_UNROLL for (int v = 0; v < 2; v++)
                y[v] = _mm256_cvtepi32_ps(_mm256_castps_si256(y[v]));
        if (integer && p->shift != NULL)
            at.scale[BI_SCALE_BIAS] = p->shift[i] + p->output;
        unsigned below = (unsigned)finish(s, &at, y, 2, output, kind, scaled);
        if (has_signs)
            bi_put_sixteen(p, signs + i * words, (below ^ flips) & there);
        if (at.residual != NULL)
            at.residual += channels;
        if (at.floats != NULL)
            at.floats += channels;
    }
}

/* The common cases apart: their loops are short, and wait for nothing. */
BI_TARGET_avx2 static inline void bi_finish_pixels(const bi_plane_sums *p)
{
    const bi_step *s = p->step;
    int integer = bi_conv2d_is_integer(s), scaled = s->alpha != NULL;
    bi_activation kind = (bi_activation)s->activation;
    int direct = s->floor == NULL && !s->has_residual && !s->has_signs;
#define FINISH(...)                                              \
    switch (integer * 2 + scaled) {                              \
    case 0: bi_finish_each(p, __VA_ARGS__, 0, 0); break;         \
    case 1: bi_finish_each(p, __VA_ARGS__, 1, 0); break;         \
    case 2: bi_finish_each(p, __VA_ARGS__, 0, 1); break;         \
    default: bi_finish_each(p, __VA_ARGS__, 1, 1); break;        \
    }
    if (s->threshold != NULL)
        bi_write_integer_signs(p);
    else if (direct && s->sign_threshold == NULL && kind == BI_ACTIVATION_NONE)
        FINISH(BI_PLAIN_FLOATS, BI_ACTIVATION_NONE, 1)
    else if (direct && s->sign_threshold == NULL && kind == BI_ACTIVATION_RELU)
        FINISH(BI_PLAIN_FLOATS, BI_ACTIVATION_RELU, 1)
    else if (direct && s->sign_threshold != NULL && kind == BI_ACTIVATION_NONE)
        FINISH(BI_ANY_OUTPUT, BI_ACTIVATION_NONE, 1)
    else if (integer)
        bi_finish_each(p, BI_ANY_OUTPUT, kind, 0, 1, 1);
    else
        bi_finish_each(p, BI_ANY_OUTPUT, kind, 0, 1, 0);
#undef FINISH
}

#include "../epilogue_end.inc"
#undef BI_TARGET
#undef BI_OWN
#undef V
#endif
