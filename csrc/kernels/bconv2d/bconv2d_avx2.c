/* bconv2d_avx2.c -- binary convolution by table look-up (lookup.h has the arithmetic,
 * lookup_pairs.inc the layout, lookup_avx2.h the inner loop), 32 channels and two pixels to a
 * vector.
 *
 * Loops: tile of pairs -> block of 1 to 4 vectors -> part of K (at most 126 entries, so that its
 * weights stay in the first-level cache) -> pair.  Sums of parts are kept as 16-bit words, split
 * into even and odd channels; the last part goes from registers to the output.
 */
#if defined(__x86_64__)
#include "../unroll.h"
#include "lookup.h"
#include "lookup_avx2.h"
#include "pairs_avx2.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_NAME(operation) bi_##operation##_lookup4_avx2
#define BI_OWN(name) name##_lookup4_avx2
#define NOT_WITH 0

#define LANES BI_OWN(LANES)
#define add_part BI_OWN(add_part)
#define sum_words BI_OWN(sum_words)
#define widen BI_OWN(widen)
#define put_signs BI_OWN(put_signs)
#define load_scale BI_OWN(load_scale)
#define activate BI_OWN(activate)
#define scale BI_OWN(scale)
#define write_floats BI_OWN(write_floats)
#define write_signs BI_OWN(write_signs)
#define write_outputs BI_OWN(write_outputs)
#define finish_part BI_OWN(finish_part)
#define run_tile BI_OWN(run_tile)
#define run_tiles BI_OWN(run_tiles)
#define run_block BI_OWN(run_block)

enum { LANES = 32 };

/* Add a part of K for one pair, or for two that compute the same tap rows. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
add_part(const bi_block *b, const bi_part *p, const bi_pair *one, const bi_pair *other, int vectors,
         int pairs, bi_sums_avx2 *sums)
{
    const bi_lookup *shape = b->shape;
    size_t segment_entries = (size_t)shape->segment_entries, entries = (size_t)p->entries;
    int32_t per_row = shape->segments_per_row;
    int32_t segment = one->ky_first * per_row, end = one->ky_end * per_row;
    segment = p->segment > segment ? p->segment : segment;
    end = p->segment_end < end ? p->segment_end : end;
    BI_UNROLL for (int v = 0; v < vectors * pairs; v++)
        sums->f[v] = sums->h[v] = _mm256_setzero_si256();
    if (segment >= end)
        return;
    int32_t kx = per_row == 1 ? 0 : segment % per_row;
    int32_t ky = per_row == 1 ? segment : segment / per_row;
    size_t tap_step = (size_t)b->step->dilation_w * (size_t)shape->entries;
    size_t row_step = b->row_step[one->is_vertical];
    size_t offset = (size_t)ky * row_step + (size_t)kx * tap_step + (size_t)p->entry;
    const uint16_t *index = one->index + offset, *index_2 = other->index + offset;
    size_t bytes = (size_t)vectors * LANES;
    const uint8_t *weight =
        b->weights + ((size_t)segment * segment_entries + (size_t)p->entry) * bytes;
    for (; segment < end; segment++, weight += segment_entries * bytes) {
        if (pairs == 2)
            bi_add_entries_2x2(index, index_2, weight, entries, bi_lookup_nibbles[0], sums);
        else if (vectors == 4)
            bi_add_entries_4(index, index, weight, entries, bi_lookup_nibbles[0], sums);
        else if (vectors == 3)
            bi_add_entries_3(index, index, weight, entries, bi_lookup_nibbles[0], sums);
        else if (vectors == 2)
            bi_add_entries_2(index, index, weight, entries, bi_lookup_nibbles[0], sums);
        else
            bi_add_entries_1(index, index, weight, entries, bi_lookup_nibbles[0], sums);
        size_t step = row_step;
        if (per_row > 1 && ++kx < per_row)
            step = tap_step;
        else if (per_row > 1) {
            kx = 0;
            step -= (size_t)(per_row - 1) * tap_step;
        }
        index += step;
        index_2 += step;
    }
}

/* The sums of a vector as words: pixel A even and odd channels, pixel B even and odd channels. */
typedef struct {
    __m256i word[4];
} sum_words;

BI_TARGET_avx2 static inline __attribute__((always_inline)) sum_words widen(__m256i f, __m256i h)
{
    const __m256i even = _mm256_set1_epi16(0x00ff);
    __m256i a, b;
    bi_separate_avx2(f, h, &a, &b);
    sum_words w = {{_mm256_and_si256(a, even), _mm256_srli_epi16(a, 8), _mm256_and_si256(b, even),
                    _mm256_srli_epi16(b, 8)}};
    return w;
}

/* Put 32 signs of one pixel, from channel c of the block on, where they belong. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
put_signs(const bi_block *b, size_t pixel, int32_t c, uint32_t signs)
{
    int32_t left = b->channels - c, unit = (b->first_channel + c) / LANES;
    uint32_t *target = (uint32_t *)(b->signs + pixel * b->signs_pixel);
    signs ^= (uint32_t)b->flips[c / LANES];
    if (left < LANES)
        signs &= (1u << left) - 1;
    target[unit] = signs;
    /* The last word is whole, if only half of it has outputs. */
    if (left <= LANES && b->is_last_group && (b->floats_pixel - 1) / LANES % 2 == 0)
        target[unit + 1] = 0;
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256
load_scale(const bi_block *b, bi_scale which, int32_t c)
{
    return _mm256_loadu_ps(b->scales + (size_t)which * b->scale_step + c);
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256
activate(const bi_block *b, __m256 y, int32_t c)
{
    const __m256 zero = _mm256_setzero_ps();
    bi_activation activation = (bi_activation)b->step->activation;
    switch (activation) {
    case BI_ACTIVATION_NONE: return y;
    case BI_ACTIVATION_RELU: return _mm256_max_ps(y, zero);
    case BI_ACTIVATION_PRELU:
    case BI_ACTIVATION_RPRELU:
        if (activation == BI_ACTIVATION_RPRELU)
            y = _mm256_add_ps(y, load_scale(b, BI_SCALE_SHIFT_IN, c));
        y = _mm256_blendv_ps(y, _mm256_mul_ps(y, load_scale(b, BI_SCALE_SLOPE, c)),
                             _mm256_cmp_ps(y, zero, _CMP_LT_OQ));
        if (activation == BI_ACTIVATION_RPRELU)
            y = _mm256_add_ps(y, load_scale(b, BI_SCALE_SHIFT_OUT, c));
        return y;
    case BI_ACTIVATION_CLIP:
        y = _mm256_max_ps(y, _mm256_set1_ps(b->step->low));
        return _mm256_min_ps(y, _mm256_set1_ps(b->step->high));
    case BI_ACTIVATION_SIGMOID: {
        float values[8];
        _mm256_storeu_ps(values, y);
        bi_lookup_sigmoid(values, 8);
        return _mm256_loadu_ps(values);
    }
    }
    return _mm256_set1_ps(NAN);
}

/* Scale 32 channels of one pixel, from channel c of the block on, from their sums y. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
scale(const bi_block *b, size_t pixel, int32_t c, __m256 y[4], bi_output output)
{
    const bi_step *s = b->step;
    int any = output == BI_ANY_OUTPUT;
    int32_t first = b->first_channel + c, left = b->channels - c;
    float rest[LANES];
    if (any && s->floor != NULL)
        BI_UNROLL for (int i = 0; i < 4; i++)
            y[i] = _mm256_max_ps(y[i], load_scale(b, BI_SCALE_FLOOR, c + 8 * i));
    BI_UNROLL for (int i = 0; i < 4; i++)
        y[i] = _mm256_mul_ps(y[i], load_scale(b, BI_SCALE_ALPHA, c + 8 * i));
    if (any && b->beta != NULL) {
        __m256 beta = _mm256_set1_ps(b->beta[pixel * b->groups]);
        BI_UNROLL for (int i = 0; i < 4; i++) y[i] = _mm256_mul_ps(y[i], beta);
    }
    BI_UNROLL for (int i = 0; i < 4; i++)
        y[i] = _mm256_add_ps(y[i], load_scale(b, BI_SCALE_BIAS, c + 8 * i));
    if (output == BI_SHORTCUT || (any && b->residual != NULL)) {
        const float *residual = b->residual + pixel * b->floats_pixel + first;
        if (left < LANES) {
            memset(rest, 0, sizeof rest);
            memcpy(rest, residual, (size_t)left * sizeof *rest);
            residual = rest;
        }
        BI_UNROLL for (int i = 0; i < 4; i++)
            y[i] = _mm256_add_ps(y[i], _mm256_loadu_ps(residual + 8 * i));
    }
    if (any && s->activation != BI_ACTIVATION_NONE)
        BI_UNROLL for (int i = 0; i < 4; i++) y[i] = activate(b, y[i], c + 8 * i);
}

/* Write 32 channels of one pixel, from channel c of the block on, as floats or signs of floats. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
write_floats(const bi_block *b, size_t pixel, int32_t c, __m256i even, __m256i odd,
             bi_output output)
{
    const __m128i dots[4] = {_mm256_castsi256_si128(even), _mm256_castsi256_si128(odd),
                             _mm256_extracti128_si256(even, 1), _mm256_extracti128_si256(odd, 1)};
    __m256 y[4];
    BI_UNROLL for (int i = 0; i < 4; i++)
        y[i] = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(dots[i]));
    scale(b, pixel, c, y, output);
    if (output == BI_SHORTCUT || (output == BI_ANY_OUTPUT && b->signs != NULL)) {
        uint32_t signs = 0;
        BI_UNROLL for (int i = 0; i < 4; i++) {
            __m256 below = _mm256_cmp_ps(
                y[i], load_scale(b, BI_SCALE_SIGN_THRESHOLD, c + 8 * i), _CMP_LT_OQ);
            signs |= (uint32_t)_mm256_movemask_ps(below) << (8 * i);
        }
        put_signs(b, pixel, c, signs);
        if (output == BI_ANY_OUTPUT && b->floats == NULL)
            return;
    }
    int32_t left = b->channels - c;
    float *target = b->floats + pixel * b->floats_pixel + b->first_channel + c;
    if (left < LANES) {
        float rest[LANES];
        BI_UNROLL for (int i = 0; i < 4; i++) _mm256_storeu_ps(rest + 8 * i, y[i]);
        memcpy(target, rest, (size_t)left * sizeof *rest);
    } else
        BI_UNROLL for (int i = 0; i < 4; i++) _mm256_storeu_ps(target + 8 * i, y[i]);
}

/* Write 32 channels of one pixel, from channel c of the block on, as signs of integers. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
write_signs(const bi_block *b, size_t pixel, int32_t c, __m256i even, __m256i odd)
{
    const int16_t *thresholds = b->thresholds + c;
    even = _mm256_cmpgt_epi16(_mm256_loadu_si256((const __m256i *)thresholds), even);
    odd = _mm256_cmpgt_epi16(_mm256_loadu_si256((const __m256i *)(thresholds + 16)), odd);
    put_signs(b, pixel, c, (uint32_t)_mm256_movemask_epi8(_mm256_packs_epi16(even, odd)));
}

/* Finish 32 channels of one pixel, from channel c of the block on, from their sums of f. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
write_outputs(const bi_block *b, const bi_pair *p, int which, int32_t c, __m256i even, __m256i odd,
              bi_output output)
{
    const int16_t *constants = p->constants[which] + b->first_channel + c;
    __m256i parity = _mm256_set1_epi16(p->parity[which]);
    __m256i c_even = _mm256_loadu_si256((const __m256i *)constants);
    __m256i c_odd = _mm256_loadu_si256((const __m256i *)(constants + 16));
    even = _mm256_add_epi16(_mm256_slli_epi16(even, 2), _mm256_add_epi16(c_even, parity));
    odd = _mm256_add_epi16(_mm256_slli_epi16(odd, 2), _mm256_add_epi16(c_odd, parity));
    size_t pixel = bi_pair_pixel(b, p, which);
    if (output == BI_SIGNS)
        write_signs(b, pixel, c, even, odd);
    else
        write_floats(b, pixel, c, even, odd, output);
}

/* Finish a part of K: keep its sums, or add those kept before and write the outputs. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
finish_part(const bi_block *b, const bi_pair *p, int vectors, const __m256i *f, const __m256i *h,
            int first, int last, __m256i *kept, bi_output output)
{
    sum_words w[4];
    BI_UNROLL for (int v = 0; v < vectors; v++) w[v] = widen(f[v], h[v]);
    if (!first)
        BI_UNROLL for (int v = 0; v < vectors; v++)
            BI_UNROLL for (int i = 0; i < 4; i++)
                w[v].word[i] = _mm256_add_epi16(w[v].word[i], kept[4 * v + i]);
    if (!last) {
        BI_UNROLL for (int v = 0; v < vectors; v++)
            BI_UNROLL for (int i = 0; i < 4; i++) kept[4 * v + i] = w[v].word[i];
        return;
    }
    BI_UNROLL for (int which = 0; which < 2; which++)
        if (which == 0 || !p->is_alone)
            BI_UNROLL for (int v = 0; v < vectors; v++)
                write_outputs(b, p, which, v * LANES, w[v].word[2 * which],
                              w[v].word[2 * which + 1], output);
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) void
run_tile(const bi_block *shared, const bi_pair *pairs, size_t count, int vectors, bi_output output)
{
    const bi_block copy = *shared, *b = &copy;    /* which no store can change */
    __m256i kept[BI_LOOKUP_TILE][16];
    bi_part p = {0};
    int more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM_AVX2, &p);
    for (int first = 1; more; first = 0) {
        bi_part now = p;
        more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM_AVX2, &p);
        for (size_t i = 0; i < count; i++) {
            bi_sums_avx2 sums;
            if (vectors == 2 && i + 1 < count && bi_pairs_lie_alike(&pairs[i], &pairs[i + 1])) {
                add_part(b, &now, &pairs[i], &pairs[i + 1], 2, 2, &sums);
                finish_part(b, &pairs[i], 2, sums.f, sums.h, first, !more, kept[i],
                            output);
                i++;
                finish_part(b, &pairs[i], 2, sums.f + 2, sums.h + 2, first, !more, kept[i],
                            output);
            } else {
                add_part(b, &now, &pairs[i], &pairs[i], vectors, 1, &sums);
                finish_part(b, &pairs[i], vectors, sums.f, sums.h, first, !more, kept[i],
                            output);
            }
        }
    }
}

#define DEFINE_RUN_TILE(vectors, output)                                                   \
    BI_TARGET_avx2 static __attribute__((noinline)) void BI_OWN(run_tile_##vectors##_##output)( \
        const bi_block *b, const bi_pair *pairs, size_t count)                                \
    {                                                                                      \
        run_tile(b, pairs, count, vectors, output);                                        \
    }
#define DEFINE_RUN_TILES(vectors)            \
    DEFINE_RUN_TILE(vectors, BI_PLAIN_FLOATS) \
    DEFINE_RUN_TILE(vectors, BI_SHORTCUT)     \
    DEFINE_RUN_TILE(vectors, BI_ANY_OUTPUT)   \
    DEFINE_RUN_TILE(vectors, BI_SIGNS)
DEFINE_RUN_TILES(1)
DEFINE_RUN_TILES(2)
DEFINE_RUN_TILES(3)
DEFINE_RUN_TILES(4)

static void (*const run_tiles[4][BI_OUTPUTS])(const bi_block *, const bi_pair *, size_t) = {
#define RUN_TILES(vectors)                                                        \
    {BI_OWN(run_tile_##vectors##_BI_PLAIN_FLOATS), BI_OWN(run_tile_##vectors##_BI_SHORTCUT), \
     BI_OWN(run_tile_##vectors##_BI_ANY_OUTPUT), BI_OWN(run_tile_##vectors##_BI_SIGNS)}
    RUN_TILES(1), RUN_TILES(2), RUN_TILES(3), RUN_TILES(4)};

static void run_block(const bi_block *b, const bi_pair *pairs, size_t count, int32_t vectors,
                      bi_output output)
{
    run_tiles[vectors - 1][output](b, pairs, count);
}

static int BI_OWN(suits)(const bi_step *s)
{
    (void)s;
    return 1;
}

#include "lookup_pairs.inc"

#undef LANES
#undef add_part
#undef sum_words
#undef widen
#undef put_signs
#undef load_scale
#undef activate
#undef scale
#undef write_floats
#undef write_signs
#undef write_outputs
#undef finish_part
#undef run_tile
#undef run_tiles
#undef run_block
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef NOT_WITH
#undef DEFINE_RUN_TILE
#undef DEFINE_RUN_TILES
#undef RUN_TILES
#endif
