/* finish_avx2.h -- the epilogue (../epilogue.h) of 16 outputs of many pixels, to the same floats and
 * bits as bi_finish_floats() and bi_finish().
 *
 * Stage by stage over sums that lie in the cache, so that every loop is short and its parameters stay
 * in registers; scale, bias and ReLU are one stage, which writes the target where nothing follows.
 */
#ifndef BITINFER_CONV2D_FINISH_AVX2_H
#define BITINFER_CONV2D_FINISH_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "../isa.h"
#include "conv2d.h"

#define BI_INLINE_AVX2 BI_TARGET_avx2 static inline __attribute__((always_inline))

/* Sums of the outputs from `output` on, `outputs` (at most 16) of them, for the pixels from number
 * `first` on; pixel i has sums[16 * i].  They are spoilt. */
typedef struct {
    const bi_step *step;
    const bi_pointers *at;
    size_t first, count;
    int32_t output, outputs;
    float *sums; /* of integer layers i32 */
    const float *const *shift; /* [count][16], in place of the bias, or NULL */
} bi_plane_sums;

typedef struct {
    __m256 low, high;
} bi_register_pair;

/* The parameters of these outputs, the missing ones 0. */
BI_INLINE_AVX2 bi_register_pair bi_parameters(const bi_plane_sums *p, const void *from)
{
    if (from != NULL && p->outputs == 16) {
        const float *there = (const float *)from + p->output;
        bi_register_pair pair = {_mm256_loadu_ps(there), _mm256_loadu_ps(there + 8)};
        return pair;
    }
    float all[16] = {0};
    if (from != NULL)
        memcpy(all, (const float *)from + p->output, (size_t)p->outputs * 4);
    bi_register_pair pair = {_mm256_loadu_ps(all), _mm256_loadu_ps(all + 8)};
    return pair;
}

BI_INLINE_AVX2 bi_register_pair bi_load_pair(const float *from)
{
    bi_register_pair pair = {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
    return pair;
}

BI_INLINE_AVX2 void bi_store_pair(float *to, bi_register_pair y)
{
    _mm256_storeu_ps(to, y.low);
    _mm256_storeu_ps(to + 8, y.high);
}

/* The first `count` of 16 floats; as stores of 8, 4, 2 and 1, because masked ones are slow on Zen. */
BI_INLINE_AVX2 void bi_store_some(float *to, const float *from, int32_t count)
{
    if (count & 16) {
        bi_store_pair(to, bi_load_pair(from));
        return;
    }
    if (count & 8) {
        _mm256_storeu_ps(to, _mm256_loadu_ps(from));
        to += 8, from += 8;
    }
    if (count & 4) {
        _mm_storeu_ps(to, _mm_loadu_ps(from));
        to += 4, from += 4;
    }
    if (count & 2) {
        memcpy(to, from, 8);
        to += 2, from += 2;
    }
    if (count & 1)
        *to = *from;
}

/* To floats, times alpha, plus bias (1) or shift (2), ReLU: each if the constant says so. */
BI_INLINE_AVX2 void bi_linear(const bi_plane_sums *p, float *to, size_t stride, int integer,
                              int scaled, int biased, int relu)
{
    bi_register_pair alpha = bi_parameters(p, p->step->alpha),
                     bias = bi_parameters(p, p->step->bias);
    __m256 zero = _mm256_setzero_ps();
    for (size_t i = 0; i < p->count; i++, to += stride) {
        bi_register_pair y = bi_load_pair(p->sums + i * 16);
        if (integer) {
            y.low = _mm256_cvtepi32_ps(_mm256_castps_si256(y.low));
            y.high = _mm256_cvtepi32_ps(_mm256_castps_si256(y.high));
        }
        if (scaled) {
            y.low = _mm256_mul_ps(y.low, alpha.low);
            y.high = _mm256_mul_ps(y.high, alpha.high);
        }
        if (biased == 2)
            bias = bi_load_pair(p->shift[i] + p->output);
        if (biased) {
            y.low = _mm256_add_ps(y.low, bias.low);
            y.high = _mm256_add_ps(y.high, bias.high);
        }
        if (relu) {
            y.low = _mm256_max_ps(y.low, zero);
            y.high = _mm256_max_ps(y.high, zero);
        }
        bi_store_pair(to, y);
    }
}

BI_TARGET_avx2 static void bi_linear_floats(const bi_plane_sums *p, float *to, size_t stride, int relu)
{
    switch ((p->step->alpha != NULL) * 4 + (p->step->bias != NULL) * 2 + relu) {
    case 0: bi_linear(p, to, stride, 0, 0, 0, 0); break;
    case 1: bi_linear(p, to, stride, 0, 0, 0, 1); break;
    case 2: bi_linear(p, to, stride, 0, 0, 1, 0); break;
    case 3: bi_linear(p, to, stride, 0, 0, 1, 1); break;
    case 4: bi_linear(p, to, stride, 0, 1, 0, 0); break;
    case 5: bi_linear(p, to, stride, 0, 1, 0, 1); break;
    case 6: bi_linear(p, to, stride, 0, 1, 1, 0); break;
    default: bi_linear(p, to, stride, 0, 1, 1, 1); break;
    }
}

BI_TARGET_avx2 static void bi_linear_integers(const bi_plane_sums *p, float *to, size_t stride, int relu)
{
    int biased = p->shift != NULL ? 2 : p->step->bias != NULL;
    switch ((p->step->alpha != NULL) * 6 + biased * 2 + relu) {
    case 0: bi_linear(p, to, stride, 1, 0, 0, 0); break;
    case 1: bi_linear(p, to, stride, 1, 0, 0, 1); break;
    case 2: bi_linear(p, to, stride, 1, 0, 1, 0); break;
    case 3: bi_linear(p, to, stride, 1, 0, 1, 1); break;
    case 4: bi_linear(p, to, stride, 1, 0, 2, 0); break;
    case 5: bi_linear(p, to, stride, 1, 0, 2, 1); break;
    case 6: bi_linear(p, to, stride, 1, 1, 0, 0); break;
    case 7: bi_linear(p, to, stride, 1, 1, 0, 1); break;
    case 8: bi_linear(p, to, stride, 1, 1, 1, 0); break;
    case 9: bi_linear(p, to, stride, 1, 1, 1, 1); break;
    case 10: bi_linear(p, to, stride, 1, 1, 2, 0); break;
    default: bi_linear(p, to, stride, 1, 1, 2, 1); break;
    }
}

/* The sums are no less than the floor; they are floats afterwards. */
BI_TARGET_avx2 static void bi_raise(const bi_plane_sums *p, int integer)
{
    bi_register_pair floor = bi_parameters(p, p->step->floor);
    for (size_t i = 0; i < p->count; i++) {
        bi_register_pair y = bi_load_pair(p->sums + i * 16);
        if (integer) {
            y.low = _mm256_cvtepi32_ps(_mm256_castps_si256(y.low));
            y.high = _mm256_cvtepi32_ps(_mm256_castps_si256(y.high));
        }
        y.low = _mm256_max_ps(y.low, floor.low);
        y.high = _mm256_max_ps(y.high, floor.high);
        bi_store_pair(p->sums + i * 16, y);
    }
}

BI_TARGET_avx2 static void bi_add_residual(const bi_plane_sums *p)
{
    const float *residual =
        p->at->residual + p->first * (size_t)p->step->out_c + (size_t)p->output;
    for (size_t i = 0; i < p->count; i++, residual += p->step->out_c) {
        float *y = p->sums + i * 16;
        if (p->outputs == 16) {
            _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), _mm256_loadu_ps(residual)));
            _mm256_storeu_ps(y + 8,
                             _mm256_add_ps(_mm256_loadu_ps(y + 8), _mm256_loadu_ps(residual + 8)));
        } else {
            for (int32_t o = 0; o < p->outputs; o++)
                y[o] += residual[o];
        }
    }
}

BI_INLINE_AVX2 __m256 bi_bend(__m256 y, __m256 slope)
{
    __m256 negative = _mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_blendv_ps(y, _mm256_mul_ps(y, slope), negative);
}

BI_TARGET_avx2 static void bi_activate_pixels(const bi_plane_sums *p)
{
    const bi_step *s = p->step;
    bi_register_pair slope = bi_parameters(p, s->slope), shift_in = bi_parameters(p, s->shift_in);
    bi_register_pair shift_out = bi_parameters(p, s->shift_out);
    __m256 zero = _mm256_setzero_ps(), low = _mm256_set1_ps(s->low), high = _mm256_set1_ps(s->high);
    for (size_t i = 0; i < p->count; i++) {
        bi_register_pair y = bi_load_pair(p->sums + i * 16);
        switch ((bi_activation)s->activation) {
        case BI_ACTIVATION_NONE: break;
        case BI_ACTIVATION_RELU:
            y.low = _mm256_max_ps(y.low, zero);
            y.high = _mm256_max_ps(y.high, zero);
            break;
        case BI_ACTIVATION_CLIP:
            y.low = _mm256_min_ps(_mm256_max_ps(y.low, low), high);
            y.high = _mm256_min_ps(_mm256_max_ps(y.high, low), high);
            break;
        case BI_ACTIVATION_PRELU:
            y.low = bi_bend(y.low, slope.low);
            y.high = bi_bend(y.high, slope.high);
            break;
        case BI_ACTIVATION_RPRELU:
            y.low = bi_bend(_mm256_add_ps(y.low, shift_in.low), slope.low);
            y.high = bi_bend(_mm256_add_ps(y.high, shift_in.high), slope.high);
            y.low = _mm256_add_ps(y.low, shift_out.low);
            y.high = _mm256_add_ps(y.high, shift_out.high);
            break;
        case BI_ACTIVATION_SIGMOID:
            for (int32_t o = 0; o < p->outputs; o++)
                p->sums[i * 16 + (size_t)o] =
                    bi_activate(s, p->output + o, p->sums[i * 16 + (size_t)o]);
            continue;
        }
        bi_store_pair(p->sums + i * 16, y);
    }
}

/* Write the signs, a bit for each sum below its threshold; blocks come in ascending order. */
BI_INLINE_AVX2 void bi_write_signs(const bi_plane_sums *p, uint64_t *signs, int integer)
{
    const bi_step *s = p->step;
    bi_register_pair threshold =
        bi_parameters(p, integer ? (const void *)s->threshold : (const void *)s->sign_threshold);
    unsigned flip = 0, there = (1u << p->outputs) - 1;
    for (int32_t o = 0; o < p->outputs; o++)
        flip |= (unsigned)(s->flip[p->output + o] != 0) << o;
    size_t words = bi_words(s->out_c);
    signs += p->first * words;
    for (size_t i = 0; i < p->count; i++, signs += words) {
        bi_register_pair y = bi_load_pair(p->sums + i * 16);
        if (integer) {
            y.low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_castps_si256(threshold.low),
                                                           _mm256_castps_si256(y.low)));
            y.high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_castps_si256(threshold.high),
                                                            _mm256_castps_si256(y.high)));
        } else {
            y.low = _mm256_cmp_ps(y.low, threshold.low, _CMP_LT_OQ);
            y.high = _mm256_cmp_ps(y.high, threshold.high, _CMP_LT_OQ);
        }
        unsigned bits = (unsigned)_mm256_movemask_ps(y.low) |
                        (unsigned)_mm256_movemask_ps(y.high) << 8;
        bits = (bits ^ flip) & there;
        if (p->output % 64 == 0)
            signs[p->output / 64] = bits;    /* and 0 up to the end of the word */
        else if (p->output % 16 == 0)
            memcpy((unsigned char *)signs + p->output / 8, &bits, 2);
        else
            for (int32_t o = 0; o < p->outputs; o++)
                bi_write_sign(signs, p->output + o, bits >> o & 1);
    }
}

BI_TARGET_avx2 static void bi_finish_pixels(const bi_plane_sums *p)
{
    const bi_step *s = p->step;
    int integer = bi_conv2d_is_integer(s), relu = s->activation == BI_ACTIVATION_RELU;
    if (s->threshold != NULL) {
        bi_write_signs(p, p->at->target, 1);
        return;
    }
    if (s->floor != NULL) {
        bi_raise(p, integer);
        integer = 0;
    }
    uint64_t *signs = bi_target_is_signs(s) ? (uint64_t *)p->at->target : p->at->signs;
    float *target = (float *)p->at->target + p->first * (size_t)s->out_c + (size_t)p->output;
    int residual = p->at->residual != NULL;
    int more = residual || !(relu || s->activation == BI_ACTIVATION_NONE);
    int direct = !more && signs == NULL && p->outputs == 16;
    if (integer)
        bi_linear_integers(p, direct ? target : p->sums, direct ? (size_t)s->out_c : 16,
                           relu && !more);
    else if (direct || s->alpha != NULL || s->bias != NULL || (relu && !more))
        bi_linear_floats(p, direct ? target : p->sums, direct ? (size_t)s->out_c : 16,
                         relu && !more);
    if (direct)
        return;
    if (residual)
        bi_add_residual(p);
    if (more && s->activation != BI_ACTIVATION_NONE)
        bi_activate_pixels(p);
    if (signs != NULL)
        bi_write_signs(p, signs, 0);
    if (!bi_target_is_signs(s))
        for (size_t i = 0; i < p->count; i++, target += s->out_c)
            bi_store_some(target, p->sums + i * 16, p->outputs);
}

#endif
