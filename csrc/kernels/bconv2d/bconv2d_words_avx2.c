/* bconv2d_words_avx2.c -- sixteen outputs at a time, four to a vector, for any shape.
 *
 * AVX2 has no popcount: two nibble look-ups per byte (vpshufb), summed in bytes.  A byte gains at
 * most 8 per word, so vpsadbw empties the bytes into 64-bit counts every 31 words.
 *
 * Packed weight: [group][block of 16 outputs][ky][kx][word][16] u64, then the tap sums.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "../isa.h"
#include "bconv2d.h"

enum { BLOCK = 16, WORDS_PER_BYTE_COUNT = 31 };

static size_t blocks_per_group(const bi_bconv2d_shape *shape)
{
    return ((size_t)shape->outputs + BLOCK - 1) / BLOCK;
}

static size_t block_words(const bi_bconv2d_shape *shape)
{
    return (size_t)shape->taps * shape->words * BLOCK;
}

static size_t weight_words(const bi_step *s)
{
    bi_bconv2d_shape shape = bi_bconv2d_shape_of(s);
    return (size_t)s->groups * blocks_per_group(&shape) * block_words(&shape);
}

static size_t words_avx2_weight_bytes(const bi_step *s)
{
    return weight_words(s) * 8 + bi_bconv2d_tap_sum_bytes(s);
}

static void words_avx2_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_bconv2d_shape shape = bi_bconv2d_shape_of(s);
    size_t output_words = (size_t)shape.taps * shape.words, blocks = blocks_per_group(&shape);
    const uint64_t *from = canonical;
    uint64_t *to = packed;
    memset(to, 0, weight_words(s) * 8);
    for (int32_t o = 0; o < s->out_c; o++, from += output_words) {
        int32_t group = o / shape.outputs, inner = o % shape.outputs;
        uint64_t *block =
            to + ((size_t)group * blocks + (size_t)(inner / BLOCK)) * block_words(&shape);
        for (size_t k = 0; k < output_words; k++)
            block[k * BLOCK + (size_t)(inner % BLOCK)] = from[k];
    }
    if (s->pad_value != 0)
        bi_bconv2d_pack_tap_sums(s, canonical, (int32_t *)(to + weight_words(s)));
}

typedef struct {
    __m256i total[4];    /* 64-bit counts of four outputs each */
    __m256i bytes[4];
    size_t room;         /* words until a byte could overflow */
} counts;

BI_TARGET_avx2 static inline __attribute__((always_inline)) void empty_bytes(counts *c)
{
    for (int v = 0; v < 4; v++) {
        __m256i sums = _mm256_sad_epu8(c->bytes[v], _mm256_setzero_si256());
        c->total[v] = _mm256_add_epi64(c->total[v], sums);
        c->bytes[v] = _mm256_setzero_si256();
    }
    c->room = WORDS_PER_BYTE_COUNT;
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) void
count_words(const uint64_t *a, const uint64_t *w, size_t words, counts *c)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1,
                                           2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    while (words > 0) {
        size_t now = words < c->room ? words : c->room;
        for (size_t k = 0; k < now; k++, w += BLOCK) {
            __m256i a_u64x4 = _mm256_set1_epi64x((long long)a[k]);
            for (int v = 0; v < 4; v++) {
                __m256i w_u64x4 = _mm256_loadu_si256((const __m256i *)(w + 4 * v));
                __m256i differ = _mm256_xor_si256(a_u64x4, w_u64x4);
                __m256i high = _mm256_and_si256(_mm256_srli_epi16(differ, 4), low);
                __m256i ones = _mm256_add_epi8(
                    _mm256_shuffle_epi8(table, _mm256_and_si256(differ, low)),
                    _mm256_shuffle_epi8(table, high));
                c->bytes[v] = _mm256_add_epi8(c->bytes[v], ones);
            }
        }
        a += now;
        words -= now;
        c->room -= now;
        if (c->room == 0)
            empty_bytes(c);
    }
}

BI_TARGET_avx2 static void words_avx2_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    bi_bconv2d_shape shape = bi_bconv2d_shape_of(s);
    const uint64_t *source = bi_bconv2d_source(s, at), *weight = s->weight;
    const int32_t *tap_sums = (const int32_t *)(weight + weight_words(s));
    size_t blocks = blocks_per_group(&shape);
    int taps_touch = s->dilation_w == 1 && s->groups == 1;
    for (int32_t oy = begin; oy < end; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++) {
            bi_bconv2d_taps t = bi_bconv2d_taps_at(s, oy, ox);
            int32_t width = t.kx_end - t.kx_first;
            int32_t valid = (t.ky_end - t.ky_first) * width * shape.channels;
            size_t pixel = (size_t)oy * (size_t)s->out_w + (size_t)ox;
            int32_t runs = taps_touch ? 1 : width;
            size_t run_words = taps_touch ? (size_t)width * shape.words : shape.words;
            for (size_t b = 0; b < (size_t)s->groups * blocks; b++) {
                size_t group = b / blocks;
                counts c = {.room = WORDS_PER_BYTE_COUNT};
                for (int v = 0; v < 4; v++)
                    c.total[v] = c.bytes[v] = _mm256_setzero_si256();
                for (int32_t ky = t.ky_first; ky < t.ky_end && width > 0; ky++) {
                    size_t y = (size_t)(t.y + ky * s->dilation_h);
                    size_t x = (size_t)(t.x + t.kx_first * s->dilation_w);
                    const uint64_t *a = source +
                                        (y * (size_t)s->in_w + x) * shape.pixel_words +
                                        group * shape.words;
                    const uint64_t *w =
                        weight + b * block_words(&shape) +
                        (size_t)(ky * s->kernel_w + t.kx_first) * shape.words * BLOCK;
                    for (int32_t i = 0; i < runs; i++) {
                        count_words(a, w, run_words, &c);
                        a += (size_t)s->dilation_w * shape.pixel_words;
                        w += shape.words * BLOCK;
                    }
                }
                empty_bytes(&c);
                int64_t differ[BLOCK];
                for (int v = 0; v < 4; v++)
                    _mm256_storeu_si256((__m256i *)(differ + 4 * v), c.total[v]);
                int32_t inner = (int32_t)(b % blocks) * BLOCK;
                int32_t o = (int32_t)group * shape.outputs + inner;
                int32_t left = shape.outputs - inner < BLOCK ? shape.outputs - inner : BLOCK;
                int32_t dot[BLOCK];
                for (int32_t i = 0; i < left; i++) {
                    dot[i] = valid - 2 * (int32_t)differ[i];
                    if (s->pad_value != 0)
                        dot[i] += bi_bconv2d_padding_sum(s, tap_sums, &t, o + i);
                }
                bi_bconv2d_finish(s, at, pixel, (int32_t)group, o, left, dot);
            }
        }
}

const bi_kernel bi_bconv2d_words_avx2 = {
    .leaves_gaps = 1,
    .block = BLOCK,
    .weight_bytes = words_avx2_weight_bytes,
    .pack_weight = words_avx2_pack_weight,
    .scratch_bytes = bi_bconv2d_scratch_bytes,
    .stage = bi_bconv2d_stage,
    .run = words_avx2_run,
};
#endif
