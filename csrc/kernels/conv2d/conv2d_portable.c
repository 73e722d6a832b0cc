/* conv2d_portable.c -- up to 32 outputs of one pixel at a time, for any CPU.  The compiler splits
 * the eight-lane vectors where registers are narrower.
 *
 * Packed weight: [group][block of 8 outputs][ky][kx][c][8] f32, of integer layers i32, missing
 * outputs 0; then the shifts.
 */
#include <string.h>

#include "conv2d.h"

typedef float f32x8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t i32x8 __attribute__((vector_size(32), aligned(4), may_alias));

/* Weights of a block of 8 outputs. */
static size_t block_weights(const bi_step *s)
{
    return bi_conv2d_taps(s) * (size_t)(s->in_c / s->groups) * 8;
}

static size_t layout_bytes(const bi_step *s)
{
    size_t blocks = ((size_t)(s->out_c / s->groups) + 7) / 8;
    return (size_t)s->groups * blocks * block_weights(s) * 4;
}

static size_t vectors_weight_bytes(const bi_step *s)
{
    return layout_bytes(s) + bi_conv2d_shift_bytes(s);
}

static void vectors_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    size_t channels = (size_t)(s->in_c / s->groups), outputs = (size_t)(s->out_c / s->groups);
    size_t blocks = (outputs + 7) / 8;
    memset(packed, 0, layout_bytes(s));
    for (size_t o = 0; o < (size_t)s->out_c; o++) {
        size_t inner = o % outputs;
        size_t to = (o / outputs * blocks + inner / 8) * block_weights(s) + inner % 8;
        for (size_t tap = 0; tap < bi_conv2d_taps(s); tap++)
            for (size_t c = 0; c < channels; c++, to += 8) {
                float weight = bi_conv2d_weight_at(s, canonical, o, tap, c);
                if (bi_conv2d_is_integer(s))
                    ((int32_t *)packed)[to] = (int32_t)weight;
                else
                    ((float *)packed)[to] = weight;
            }
    }
    bi_conv2d_pack_shifts(s, canonical, (unsigned char *)packed + layout_bytes(s));
}

/* Where the outputs of one pixel find their inputs. */
typedef struct {
    const bi_step *step;
    const void *source;
    size_t channel;    /* the first of the group */
    int32_t y, x;      /* map position of tap (0, 0); may be negative */
    int32_t ky_first, ky_end, kx_first, kx_end;
} window;

/* Define NAME, the sums of `blocks` (1 to 4, a constant where this is inlined) blocks of 8 outputs;
 * INPUT gives the value number i of the source, in channel c. */
#define DEFINE_SUMS(NAME, TYPE, VECTOR, INPUT)                                                     \
    static inline __attribute__((always_inline)) void NAME(const window *at, const void *weight,   \
                                                           int blocks, TYPE *sums)                 \
    {                                                                                              \
        const bi_step *s = at->step;                                                               \
        size_t channels = (size_t)(s->in_c / s->groups), block = block_weights(s);                 \
        VECTOR sum[4] = {{0}, {0}, {0}, {0}};                                                      \
        for (int32_t ky = at->ky_first; ky < at->ky_end; ky++)                                     \
            for (int32_t kx = at->kx_first; kx < at->kx_end; kx++) {                               \
                size_t y = (size_t)(at->y + ky * s->dilation_h);                                   \
                size_t x = (size_t)(at->x + kx * s->dilation_w);                                   \
                size_t from = (y * (size_t)s->in_w + x) * (size_t)s->in_c;                         \
                const TYPE *w =                                                                    \
                    (const TYPE *)weight + (size_t)(ky * s->kernel_w + kx) * channels * 8;         \
                for (size_t k = 0; k < channels; k++, w += 8) {                                    \
                    size_t c = at->channel + k, i = from + c;                                      \
                    TYPE value = INPUT;                                                            \
                    for (int b = 0; b < blocks; b++)                                               \
                        sum[b] += value * *(const VECTOR *)(w + (size_t)b * block);                \
                }                                                                                  \
            }                                                                                      \
        for (int b = 0; b < blocks; b++)                                                           \
            memcpy(sums + 8 * b, &sum[b], sizeof sum[b]);                                          \
    }

DEFINE_SUMS(sum_floats, float, f32x8, ((const float *)at->source)[i])
DEFINE_SUMS(sum_table, float, f32x8,
            s->table[((const uint8_t *)at->source)[i] * (size_t)s->in_c + c])
DEFINE_SUMS(sum_u8, int32_t, i32x8, ((const uint8_t *)at->source)[i])
DEFINE_SUMS(sum_i8, int32_t, i32x8, ((const int8_t *)at->source)[i])

#define CALL(NAME, SUMS)                                  \
    switch (blocks) {                                     \
    case 1: NAME(at, weight, 1, SUMS); break; \
    case 2: NAME(at, weight, 2, SUMS); break;             \
    case 3: NAME(at, weight, 3, SUMS); break;             \
    default: NAME(at, weight, 4, SUMS); break;            \
    }

static void sum_as_floats(const window *at, const void *weight, size_t blocks, float *sums)
{
    if (at->step->table != NULL) {
        CALL(sum_table, sums)
    } else {
        CALL(sum_floats, sums)
    }
}

static void sum_as_integers(const window *at, const void *weight, size_t blocks, int32_t *sums)
{
    if (at->step->flags & BI_FLAG_U8) {
        CALL(sum_u8, sums)
    } else {
        CALL(sum_i8, sums)
    }
}

/* The outputs from o on of one pixel; the step is `after` for the epilogue. */
static void compute_outputs(const window *at, const bi_step *after, const void *weight,
                            size_t blocks, const bi_output_pixel *p, int32_t o, int32_t count)
{
    if (bi_conv2d_is_integer(at->step)) {
        int32_t sums[32];
        sum_as_integers(at, weight, blocks, sums);
        bi_finish(after, p, o, count, sums);
    } else {
        float sums[32];
        sum_as_floats(at, weight, blocks, sums);
        bi_finish_floats(after, p, o, count, sums);
    }
}

static void vectors_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t outputs = (size_t)(s->out_c / s->groups), blocks = (outputs + 7) / 8;
    const unsigned char *shifts = (const unsigned char *)s->weight + layout_bytes(s);
    bi_step after = *s;
    bi_pointers outputs_at = *at;
    outputs_at.beta = NULL;
    window v = {.step = s, .source = at->source};
    for (int32_t oy = begin; oy < end; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            bi_output_pixel p =
                bi_output_at(s, &outputs_at, (size_t)oy * (size_t)s->out_w + (size_t)ox, 0);
            v.y = oy * s->stride_h - s->pad_top;
            v.x = ox * s->stride_w - s->pad_left;
            bi_valid_taps(oy, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h,
                          &v.ky_first, &v.ky_end);
            bi_valid_taps(ox, s->stride_w, s->pad_left, s->dilation_w, s->kernel_w, s->in_w,
                          &v.kx_first, &v.kx_end);
            if (s->offset != NULL)
                after.bias = bi_conv2d_shift_at(s, shifts, oy, ox);
            for (size_t group = 0; group < (size_t)s->groups; group++) {
                v.channel = group * (size_t)(s->in_c / s->groups);
                for (size_t first = 0; first < blocks; first += 4) {
                    const float *weight =
                        (const float *)s->weight + (group * blocks + first) * block_weights(s);
                    size_t left = outputs - first * 8 < 32 ? outputs - first * 8 : 32;
                    compute_outputs(&v, &after, weight, blocks - first, &p,
                                    (int32_t)(group * outputs + first * 8), (int32_t)left);
                }
            }
        }
}

const bi_kernel bi_conv2d_vectors_portable = {
    .block = 32,
    .weight_bytes = vectors_weight_bytes,
    .pack_weight = vectors_pack_weight,
    .run = vectors_run,
};
const bi_kernel bi_dense_vectors_portable = {
    .block = 32,
    .weight_bytes = vectors_weight_bytes,
    .pack_weight = vectors_pack_weight,
    .run = vectors_run,
};
