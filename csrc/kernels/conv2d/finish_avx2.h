/* finish_avx2.h -- the epilogue (../epilogue.h) of 16 outputs of a pixel, in vectors, to the same
 * floats and bits as bi_finish_floats() and bi_finish(). */
#ifndef BITINFER_CONV2D_FINISH_AVX2_H
#define BITINFER_CONV2D_FINISH_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "../isa.h"
#include "conv2d.h"

/* What the epilogue reads for the `count` (at most 16) outputs from `first` on; the rest is 0. */
typedef struct {
    float floor[16], alpha[16], bias[16], shift_in[16], slope[16], shift_out[16], sign[16];
    int32_t threshold[16];
    int32_t first, count;
    unsigned flip;    /* a bit for each output */
} bi_block;

static inline void bi_block_copy(void *to, const void *from, const bi_block *b)
{
    memset(to, 0, 64);
    if (from != NULL)
        memcpy(to, (const float *)from + b->first, (size_t)b->count * 4);
}

static inline void bi_block_set(bi_block *b, const bi_step *s, int32_t first, int32_t count)
{
    b->first = first;
    b->count = count;
    bi_block_copy(b->floor, s->floor, b);
    bi_block_copy(b->alpha, s->alpha, b);
    bi_block_copy(b->bias, s->bias, b);
    bi_block_copy(b->shift_in, s->shift_in, b);
    bi_block_copy(b->slope, s->slope, b);
    bi_block_copy(b->shift_out, s->shift_out, b);
    bi_block_copy(b->sign, s->sign_threshold, b);
    bi_block_copy(b->threshold, s->threshold, b);
    b->flip = 0;
    if (s->flip != NULL)
        for (int32_t i = 0; i < count; i++)
            b->flip |= (unsigned)(s->flip[first + i] != 0) << i;
}

/* Write a block's signs; blocks of a pixel come in ascending order. */
static inline void bi_block_signs(const bi_block *b, uint64_t *signs, unsigned bits)
{
    bits = (bits ^ b->flip) & ((1u << b->count) - 1);
    if (b->first % 16 != 0) {
        for (int32_t i = 0; i < b->count; i++)
            bi_write_sign(signs, b->first + i, bits >> i & 1);
        return;
    }
    if (b->first % 64 == 0)
        signs[b->first / 64] = bits;    /* and 0 up to the end of the word */
    else
        memcpy((unsigned char *)signs + b->first / 8, &bits, 2);
}

/* Eight outputs, from `half` (0 or 8) of the block on. */
BI_TARGET_avx2 static inline __m256 bi_finish_half(const bi_step *s, const bi_block *b, int half,
                                                   __m256 y, const float *bias,
                                                   const float *residual)
{
    if (s->floor != NULL)
        y = _mm256_max_ps(y, _mm256_loadu_ps(b->floor + half));
    if (s->alpha != NULL)
        y = _mm256_mul_ps(y, _mm256_loadu_ps(b->alpha + half));
    if (bias != NULL)
        y = _mm256_add_ps(y, _mm256_loadu_ps(bias + half));
    if (residual != NULL)
        y = _mm256_add_ps(y, _mm256_loadu_ps(residual + half));
    __m256 zero = _mm256_setzero_ps(), slope;
    switch (s->activation) {
    case BI_ACTIVATION_NONE: return y;
    case BI_ACTIVATION_RELU: return _mm256_max_ps(y, zero);
    case BI_ACTIVATION_CLIP:
        return _mm256_min_ps(_mm256_max_ps(y, _mm256_set1_ps(s->low)), _mm256_set1_ps(s->high));
    case BI_ACTIVATION_PRELU:
    case BI_ACTIVATION_RPRELU:
        if (s->activation == BI_ACTIVATION_RPRELU)
            y = _mm256_add_ps(y, _mm256_loadu_ps(b->shift_in + half));
        slope = _mm256_mul_ps(y, _mm256_loadu_ps(b->slope + half));
        y = _mm256_blendv_ps(y, slope, _mm256_cmp_ps(y, zero, _CMP_LT_OQ));
        if (s->activation == BI_ACTIVATION_RPRELU)
            y = _mm256_add_ps(y, _mm256_loadu_ps(b->shift_out + half));
        return y;
    default: {
        float each[8];
        _mm256_storeu_ps(each, y);
        for (int i = 0; i < 8 && half + i < b->count; i++)
            each[i] = bi_activate(s, b->first + half + i, each[i]);
        return _mm256_loadu_ps(each);
    }
    }
}

/* Finish the block of the pixel number `pixel`, whose sums these are; `shift`, if not NULL, stands
 * in for the bias (16 floats). */
BI_TARGET_avx2 static inline void bi_finish_block(const bi_step *s, const bi_pointers *at,
                                                  const bi_block *b, size_t pixel, __m256 low,
                                                  __m256 high, const float *shift)
{
    size_t place = pixel * (size_t)s->out_c + (size_t)b->first;
    const float *bias = shift != NULL ? shift : s->bias != NULL ? b->bias : NULL;
    const float *residual = NULL;
    float row[16];
    if (at->residual != NULL) {
        residual = at->residual + place;
        if (b->count < 16) {
            memset(row, 0, sizeof row);
            memcpy(row, residual, (size_t)b->count * 4);
            residual = row;
        }
    }
    low = bi_finish_half(s, b, 0, low, bias, residual);
    high = bi_finish_half(s, b, 8, high, bias, residual);
    uint64_t *signs = at->signs;
    if (bi_target_is_signs(s))
        signs = at->target;
    if (signs != NULL) {
        __m256 less_low = _mm256_cmp_ps(low, _mm256_loadu_ps(b->sign), _CMP_LT_OQ);
        __m256 less_high = _mm256_cmp_ps(high, _mm256_loadu_ps(b->sign + 8), _CMP_LT_OQ);
        unsigned bits = (unsigned)_mm256_movemask_ps(less_low) |
                        (unsigned)_mm256_movemask_ps(less_high) << 8;
        bi_block_signs(b, signs + pixel * bi_words(s->out_c), bits);
        if (bi_target_is_signs(s))
            return;
    }
    float *target = (float *)at->target + place;
    if (b->count == 16) {
        _mm256_storeu_ps(target, low);
        _mm256_storeu_ps(target + 8, high);
    } else {
        _mm256_storeu_ps(row, low);
        _mm256_storeu_ps(row + 8, high);
        memcpy(target, row, (size_t)b->count * 4);
    }
}

/* The same from integer sums. */
BI_TARGET_avx2 static inline void bi_finish_integers(const bi_step *s, const bi_pointers *at,
                                                     const bi_block *b, size_t pixel, __m256i low,
                                                     __m256i high, const float *shift)
{
    if (s->threshold == NULL) {
        bi_finish_block(s, at, b, pixel, _mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high), shift);
        return;
    }
    __m256i less_low = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)b->threshold), low);
    __m256i less_high =
        _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)(b->threshold + 8)), high);
    unsigned bits = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(less_low)) |
                    (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(less_high)) << 8;
    bi_block_signs(b, (uint64_t *)at->target + pixel * bi_words(s->out_c), bits);
}

#endif
