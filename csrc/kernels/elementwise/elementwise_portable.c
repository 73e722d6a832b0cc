/* elementwise_portable.c -- elementwise_body.inc for any CPU, and operations without a window that have
 * but one version.
 *
 * normalize  target[y][x][c] = table[source[y][x][c]][c]    source u8, weight = table [256][in_c]
 * flatten    a map to a vector; channels last is a copy, channels first transposes
 * softmax    of a vector, in double precision
 *
 * Maps are [in_h][in_w][in_c]; rows: in_h, and 1 for flatten and softmax.
 */
#include <string.h>

#include "../vectors/vectors_portable.h"

#define BI_TARGET BI_TARGET_portable
#define BI_NAME(operation) bi_##operation##_vectors_portable
#define BI_OWN(name) name##_portable
#define V(operation) bi_v_##operation##_portable
#include "elementwise_body.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef V

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

/* Append the low `count` bits of `bits` (the others are 0) at bit *at. */
static inline void append_bits(uint64_t *target, size_t *at, uint64_t bits, size_t count)
{
    size_t word = *at / 64, shift = *at % 64;
    if (shift == 0)
        target[word] = bits;
    else {
        target[word] |= bits << shift;
        if (shift + count > 64)
            target[word + 1] = bits >> (64 - shift);
    }
    *at += count;
}

/* Transpose 64 words of 64 bits (Warren, Hacker's Delight, section 7-3). */
static void transpose(uint64_t rows[64])
{
    uint64_t mask = UINT64_C(0x00000000ffffffff);
    for (int width = 32; width != 0; width >>= 1, mask ^= mask << width)
        for (int first = 0; first < 64; first += 2 * width)
            for (int i = first; i < first + width; i++) {
                uint64_t swap = (rows[i] >> width ^ rows[i + width]) & mask;
                rows[i + width] ^= swap;
                rows[i] ^= swap << width;
            }
}

/* Set the `count` bits from bit `at` on, which are 0, to the low bits of `bits`. */
static inline void set_bits(uint64_t *target, size_t at, uint64_t bits, size_t count)
{
    target[at / 64] |= bits << (at % 64);
    if (at % 64 + count > 64)
        target[at / 64 + 1] |= bits >> (64 - at % 64);
}

static void flatten_signs(const bi_step *s, const bi_pointers *at)
{
    size_t pixels = (size_t)s->in_h * (size_t)s->in_w, channels = (size_t)s->in_c;
    size_t words = bi_words(s->in_c), length = pixels * channels;
    const uint64_t *source = at->source;
    uint64_t *target = at->target;
    if (!(s->flags & BI_FLAG_CHANNELS_FIRST)) {
        size_t bit = 0;
        for (size_t p = 0; p < pixels; p++)
            for (size_t c = 0; c < channels; c += 64)
                append_bits(target, &bit, *source++, channels - c < 64 ? channels - c : 64);
        return;
    }
    memset(target, 0, (length + 63) / 64 * 8);
    for (size_t p = 0; p < pixels; p += 64) {
        size_t count = pixels - p < 64 ? pixels - p : 64;
        for (size_t k = 0; k < words; k++) {
            uint64_t square[64] = {0}; /* a word of 64 pixels, then 64 channels of a pixel each */
            for (size_t i = 0; i < count; i++)
                square[i] = source[(p + i) * words + k];
            transpose(square);
            size_t end = channels - 64 * k < 64 ? channels - 64 * k : 64;
            for (size_t c = 0; c < end; c++)
                set_bits(target, (64 * k + c) * pixels + p, square[c], count);
        }
    }
}

static void flatten_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    if (begin >= end) /* the one row is somebody else's */
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

const bi_kernel bi_normalize_scalar_portable = {.block = 1, .run = normalize_run};
const bi_kernel bi_flatten_scalar_portable = {.block = 64, .run = flatten_run};
const bi_kernel bi_softmax_scalar_portable = {.block = 1, .run = softmax_run};
