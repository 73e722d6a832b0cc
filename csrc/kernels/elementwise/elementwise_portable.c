/* elementwise_portable.c -- operations without a window.
 *
 * normalize  target[y][x][c] = table[source[y][x][c]][c]    source u8, weight = table [256][in_c]
 * affine     target = source * alpha[c] + bias[c], rounded after each operation
 * activate   target = the activation of source (../epilogue.h)
 * add        target = source + other                        other: a map, or (BI_FLAG_VECTOR) [in_c]
 * multiply   target = source * other
 * quantize   target = source / low, rounded half to even, between -128 and 127, as int8; NaN gives 0
 * flatten    a map to a vector; channels last is a copy, channels first transposes
 * softmax    of a vector, in double precision
 *
 * Maps are [in_h][in_w][in_c]; rows: in_h, and 1 for flatten and softmax.
 */
#include <math.h>
#include <string.h>

#include "../epilogue.h"

static void normalize_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c, first = (size_t)begin * (size_t)s->in_w;
    size_t last = (size_t)end * (size_t)s->in_w;
    const unsigned char *source = (const unsigned char *)at->source + first * channels;
    const float *table = s->weight;
    float *target = (float *)at->target + first * channels;
    for (size_t pixel = first; pixel < last; pixel++)
        for (size_t c = 0; c < channels; c++)
            *target++ = table[(size_t)*source++ * channels + c];
}

static void affine_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c, first = (size_t)begin * (size_t)s->in_w;
    size_t last = (size_t)end * (size_t)s->in_w;
    const float *source = (const float *)at->source + first * channels;
    float *target = (float *)at->target + first * channels;
    for (size_t pixel = first; pixel < last; pixel++, source += channels, target += channels)
        for (size_t c = 0; c < channels; c++)
            target[c] = source[c] * s->alpha[c] + s->bias[c];
}

static void activate_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c, first = (size_t)begin * (size_t)s->in_w;
    size_t last = (size_t)end * (size_t)s->in_w;
    const float *source = (const float *)at->source + first * channels;
    float *target = (float *)at->target + first * channels;
    if (s->activation == BI_ACTIVATION_RELU) {    /* apart, so that the compiler may use vectors */
        for (size_t i = 0; i < (last - first) * channels; i++)
            target[i] = source[i] > 0 ? source[i] : 0;
        return;
    }
    for (size_t pixel = first; pixel < last; pixel++, source += channels, target += channels)
        for (size_t c = 0; c < channels; c++)
            target[c] = bi_activate(s, (int32_t)c, source[c]);
}

static void add_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c, first = (size_t)begin * (size_t)s->in_w;
    size_t last = (size_t)end * (size_t)s->in_w;
    size_t step = s->flags & BI_FLAG_VECTOR ? 0 : channels;
    const float *source = (const float *)at->source + first * channels;
    const float *other = at->residual + first * step;
    float *target = (float *)at->target + first * channels;
    for (; first < last; first++, source += channels, other += step, target += channels)
        for (size_t c = 0; c < channels; c++)
            target[c] = source[c] + other[c];
}

static void multiply_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t channels = (size_t)s->in_c, first = (size_t)begin * (size_t)s->in_w;
    size_t last = (size_t)end * (size_t)s->in_w;
    size_t step = s->flags & BI_FLAG_VECTOR ? 0 : channels;
    const float *source = (const float *)at->source + first * channels;
    const float *other = at->residual + first * step;
    float *target = (float *)at->target + first * channels;
    for (; first < last; first++, source += channels, other += step, target += channels)
        for (size_t c = 0; c < channels; c++)
            target[c] = source[c] * other[c];
}

static void quantize_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t row = (size_t)s->in_w * (size_t)s->in_c;
    const float *source = at->source;
    int8_t *target = at->target;
    for (size_t i = (size_t)begin * row; i < (size_t)end * row; i++) {
        float q = rintf(source[i] / s->low);
        q = q < 127 ? q : q >= 127 ? 127 : 0;    /* NaN gives 0 */
        target[i] = (int8_t)(q > -128 ? q : -128);
    }
}

static void flatten_floats(const bi_step *s, const bi_pointers *at)
{
    size_t pixels = (size_t)s->in_h * (size_t)s->in_w, channels = (size_t)s->in_c;
    const float *source = at->source;
    float *target = at->target;
    if (!(s->flags & BI_FLAG_CHANNELS_FIRST)) {
        memcpy(target, source, pixels * channels * sizeof *target);
        return;
    }
    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++)
            *target++ = source[p * channels + c];
}

static void flatten_signs(const bi_step *s, const bi_pointers *at)
{
    size_t pixels = (size_t)s->in_h * (size_t)s->in_w, channels = (size_t)s->in_c;
    size_t words = bi_words(s->in_c), length = pixels * channels;
    int channels_first = (s->flags & BI_FLAG_CHANNELS_FIRST) != 0;
    const uint64_t *source = at->source;
    uint64_t *target = at->target;
    memset(target, 0, (length + 63) / 64 * 8);
    for (size_t i = 0; i < length; i++) {
        size_t p = channels_first ? i % pixels : i / channels;
        size_t c = channels_first ? i / pixels : i % channels;
        target[i / 64] |= (source[p * words + c / 64] >> (c % 64) & 1) << (i % 64);
    }
}

static void flatten_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    if (begin >= end)    /* the one row is somebody else's */
        return;
    if (s->flags & BI_FLAG_BITS)
        flatten_signs(s, at);
    else
        flatten_floats(s, at);
}

static void softmax_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    if (begin >= end)
        return;
    const float *source = at->source;
    float *target = at->target, largest = source[0];
    double sum = 0;
    for (int32_t c = 1; c < s->in_c; c++)
        largest = source[c] > largest ? source[c] : largest;
    for (int32_t c = 0; c < s->in_c; c++)
        sum += exp((double)(source[c] - largest));
    for (int32_t c = 0; c < s->in_c; c++)
        target[c] = (float)(exp((double)(source[c] - largest)) / sum);
}

const bi_kernel bi_normalize_portable = {.run = normalize_run};
const bi_kernel bi_affine_portable = {.run = affine_run};
const bi_kernel bi_activate_portable = {.run = activate_run};
const bi_kernel bi_add_portable = {.run = add_run};
const bi_kernel bi_multiply_portable = {.run = multiply_run};
const bi_kernel bi_quantize_portable = {.run = quantize_run};
const bi_kernel bi_flatten_portable = {.run = flatten_run};
const bi_kernel bi_softmax_portable = {.run = softmax_run};
