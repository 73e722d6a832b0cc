/* bconv2d_avx2.c -- binary convolution by table look-up (lookup.h has the arithmetic,
 * lookup_avx2.h the inner loop), 32 channels and two pixels to a vector.
 *
 * Scratch, per group: the pair plane, u16 [plane_h][plane_w][entries]: for column j and entry k,
 * 16 * (a | b << 4), the offset of the table for the pixels at columns j and j + stride.  The taps
 * of a pair of neighbouring outputs lie in it side by side, so there is no im2col.  If out_w is
 * odd, the last column is paired vertically, through a second, narrow plane (the column plane).
 *
 * Loops: tile of pairs -> block of 1 to 4 vectors -> part of K (at most 126 entries, so that its
 * weights stay in the first-level cache) -> pair.  Sums of parts are kept as 16-bit words, split
 * into even and odd channels; the last part goes from registers to the output.
 */
#if defined(__x86_64__)
#include "lookup.h"
#include "lookup_avx2.h"

extern const bi_kernel bi_bconv2d_words_avx2;

enum { LANES = 32, SLACK = 64 };

/* Sums live in registers only if every index into them is known. */
#define BI_UNROLL _Pragma("GCC unroll 4")

/* Entry i, byte w: f(a, w) | f(b, w) << 4 for i = a | b << 4. */
static const uint8_t table[256][16] __attribute__((aligned(64))) = {
#define PARITY(n) (((n) ^ (n) >> 1 ^ (n) >> 2 ^ (n) >> 3) & 1)
#define ONES(n) (((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3 & 1))
#define F(a, w) ((4 - ONES((a) ^ (w)) + PARITY(w) - PARITY(a)) / 2)
#define BYTE(i, w) (F((i) & 15, w) | F((i) >> 4, w) << 4)
#define ROW(i)                                                                                  \
    {BYTE(i, 0), BYTE(i, 1), BYTE(i, 2),  BYTE(i, 3),  BYTE(i, 4),  BYTE(i, 5),  BYTE(i, 6),    \
     BYTE(i, 7), BYTE(i, 8), BYTE(i, 9),  BYTE(i, 10), BYTE(i, 11), BYTE(i, 12), BYTE(i, 13),   \
     BYTE(i, 14), BYTE(i, 15)}
#define ROWS4(i) ROW(i), ROW((i) + 1), ROW((i) + 2), ROW((i) + 3)
#define ROWS16(i) ROWS4(i), ROWS4((i) + 4), ROWS4((i) + 8), ROWS4((i) + 12)
#define ROWS64(i) ROWS16(i), ROWS16((i) + 16), ROWS16((i) + 32), ROWS16((i) + 48)
    ROWS64(0), ROWS64(64), ROWS64(128), ROWS64(192)};

/* Where the parts of the scratch begin, for one group after the other. */
typedef struct {
    size_t source, pairs, columns, parities, odd, total;    /* bytes */
    size_t pairs_u16, columns_u16;                          /* of one group */
} layout;

static layout layout_of(const bi_step *s, const bi_lookup *shape)
{
    size_t groups = (size_t)s->groups, entries = (size_t)shape->entries;
    size_t plane_h = (size_t)shape->plane_h, plane_w = (size_t)shape->plane_w;
    size_t reach_w = (size_t)shape->reach_w;
    layout at;
    at.pairs_u16 = plane_h * plane_w * entries + SLACK;
    at.columns_u16 = s->out_w % 2 != 0 ? plane_h * reach_w * entries + SLACK : 0;
    at.source = 0;
    at.pairs = (bi_bconv2d_scratch_bytes(s) + 63) / 64 * 64;
    at.columns = at.pairs + (groups * at.pairs_u16 * 2 + 63) / 64 * 64;
    at.parities = at.columns + (groups * at.columns_u16 * 2 + 63) / 64 * 64;
    at.odd = at.parities + (groups * (size_t)s->out_h * (size_t)s->out_w * 2 + 63) / 64 * 64;
    at.total = at.odd + (plane_h + 1) * plane_w * 2 + SLACK;
    return at;
}

static size_t weight_bytes(const bi_step *s)
{
    bi_lookup shape;
    if (!bi_lookup_describe(s, 4, LANES, &shape))
        return bi_bconv2d_words_avx2.weight_bytes(s) + sizeof shape;
    return shape.total_bytes;
}

/* The header of a packed weight for the other kernel has no entries. */
static void pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_lookup shape;
    if (bi_lookup_describe(s, 4, LANES, &shape)) {
        bi_lookup_pack(s, &shape, canonical, packed);
        return;
    }
    memset(packed, 0, sizeof shape);
    bi_bconv2d_words_avx2.pack_weight(s, canonical, (char *)packed + sizeof shape);
}

static size_t scratch_bytes(const bi_step *s)
{
    bi_lookup shape;
    if (!bi_lookup_describe(s, 4, LANES, &shape))
        return bi_bconv2d_words_avx2.scratch_bytes(s);
    return layout_of(s, &shape).total;
}

/* Entries that have an odd number of ones. */
BI_TARGET_avx2 static inline int32_t odd_entries(uint64_t word)
{
    word ^= word >> 1;
    word ^= word >> 2;
    return (int32_t)__builtin_popcountll(word & UINT64_C(0x1111111111111111));
}

/* Write the entries of the pairs (a[k], b[k]), 16 to a word. */
BI_TARGET_avx2 static inline void write_pairs(const uint64_t *a, const uint64_t *b, size_t words,
                                              uint16_t *to)
{
    const __m128i low = _mm_set1_epi8(0x0f), high = _mm_set1_epi8((char)0xf0);
    for (size_t k = 0; k < words; k += 2, to += 32) {
        int both = k + 1 < words;
        __m128i x = both ? _mm_loadu_si128((const __m128i *)(a + k))
                         : _mm_loadl_epi64((const __m128i *)(a + k));
        __m128i y = both ? _mm_loadu_si128((const __m128i *)(b + k))
                         : _mm_loadl_epi64((const __m128i *)(b + k));
        __m128i even = _mm_or_si128(_mm_and_si128(x, low),
                                    _mm_and_si128(_mm_slli_epi16(y, 4), high));
        __m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(x, 4), low),
                                   _mm_and_si128(y, high));
        __m256i first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
        _mm256_storeu_si256((__m256i *)to, _mm256_slli_epi16(first, 4));
        if (both) {
            __m256i second = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd));
            _mm256_storeu_si256((__m256i *)(to + 16), _mm256_slli_epi16(second, 4));
        }
    }
}

/* Write the entries of a padded row for `count` columns from column `x` on: column j is paired with
 * the pixel `step` columns further in the row `other`.  A row outside the map is NULL.
 * Stray bits are 0, so the up to 15 entries that are written past a pixel's last are 0 too: right
 * for padding, and overwritten by the next pixel. */
BI_TARGET_avx2 static void write_row(const bi_step *s, const bi_lookup *shape, const uint64_t *row,
                                     const uint64_t *other, size_t pixel_words, int32_t step,
                                     int32_t x, int32_t count, uint16_t *to)
{
    static const uint64_t padding[1 << 9] = {0};
    size_t words = bi_words(shape->channels), entries = (size_t)shape->entries;
    if (row == NULL && other == NULL) {
        memset(to, 0, (size_t)count * entries * sizeof *to);
        return;
    }
    int contiguous = words == pixel_words && shape->channels % 64 == 0;
    for (int32_t j = x - s->pad_left, end = j + count; j < end;) {
        int32_t k = j + step, now = 1;
        int a_inside = row != NULL && j >= 0 && j < s->in_w;
        int b_inside = other != NULL && k >= 0 && k < s->in_w;
        const uint64_t *a = a_inside ? row + (size_t)j * pixel_words : padding;
        const uint64_t *b = b_inside ? other + (size_t)k * pixel_words : padding;
        if (contiguous && a_inside && b_inside) {
            now = s->in_w - (k > j ? k : j);
            now = now < end - j ? now : end - j;
        }
        write_pairs(a, b, (size_t)now * words, to);
        to += (size_t)now * entries;
        j += now;
    }
}

/* Count the odd entries of every pixel of the padded map. */
BI_TARGET_avx2 static void count_odd(const bi_step *s, const bi_lookup *shape,
                                     const uint64_t *source, size_t pixel_words, uint16_t *odd)
{
    size_t plane_w = (size_t)shape->plane_w, words = bi_words(shape->channels);
    int32_t from = s->pad_left, end = s->in_w + from;
    end = end < shape->plane_w ? end : shape->plane_w;
    memset(odd, 0, (size_t)shape->plane_h * plane_w * sizeof *odd);
    for (int32_t y = 0; y < s->in_h && y + s->pad_top < shape->plane_h; y++) {
        uint16_t *row = odd + (size_t)(y + s->pad_top) * plane_w;
        const uint64_t *pixel = source + (size_t)y * (size_t)s->in_w * pixel_words;
        for (int32_t x = from; x < end; x++, pixel += pixel_words) {
            int32_t count = 0;
            for (size_t k = 0; k < words; k++)
                count += odd_entries(pixel[k]);
            row[x] = (uint16_t)count;
        }
    }
}

/* Row y of the padded map, or NULL if it is padding. */
static inline const uint64_t *padded_row(const bi_step *s, const uint64_t *source,
                                         size_t pixel_words, int32_t y)
{
    y -= s->pad_top;
    return y < 0 || y >= s->in_h ? NULL : source + (size_t)y * (size_t)s->in_w * pixel_words;
}

BI_TARGET_avx2 static void stage(const bi_step *s, const bi_pointers *at)
{
    const bi_lookup *shape = s->weight;
    bi_bconv2d_stage(s, at);
    if (shape->entries == 0)
        return;
    layout parts = layout_of(s, shape);
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    char *scratch = at->scratch;
    for (int32_t g = 0; g < s->groups; g++) {
        const uint64_t *source = bi_bconv2d_source(s, at) + (size_t)g * group.words;
        uint16_t *pairs = (uint16_t *)(scratch + parts.pairs) + (size_t)g * parts.pairs_u16;
        uint16_t *columns = (uint16_t *)(scratch + parts.columns) + (size_t)g * parts.columns_u16;
        for (int32_t y = 0; y < shape->plane_h; y++) {
            const uint64_t *row = padded_row(s, source, group.pixel_words, y);
            write_row(s, shape, row, row, group.pixel_words, s->stride_w, 0, shape->plane_w, pairs);
            pairs += (size_t)shape->plane_w * (size_t)shape->entries;
            if (s->out_w % 2 == 0)
                continue;
            const uint64_t *below = padded_row(s, source, group.pixel_words, y + s->stride_h);
            write_row(s, shape, row, below, group.pixel_words, 0, shape->plane_w - shape->reach_w,
                      shape->reach_w, columns);
            columns += (size_t)shape->reach_w * (size_t)shape->entries;
        }
        size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
        uint16_t *odd = (uint16_t *)(scratch + parts.odd);
        count_odd(s, shape, source, group.pixel_words, odd);
        bi_lookup_sum_parities(s, shape, odd,
                               (uint16_t *)(scratch + parts.parities) + (size_t)g * pixels);
    }
}

/* What the loops over the pairs of a tile share. */
typedef struct {
    const bi_step *step;
    const bi_lookup *shape;
    char *target;                      /* of the group's first channel of pixel 0 */
    size_t target_pixel;               /* bytes */
    const float *residual, *beta;      /* of the group's first channel of pixel 0, or NULL */
    const uint8_t *weights;            /* of the block of vectors */
    const float *alpha, *bias, *slope; /* of its first channel, as are the next two */
    const int16_t *thresholds;
    const uint64_t *flips;
    int32_t first_channel, channels;   /* of the block in the group; of the group from there on */
    int32_t first_output;              /* of the block, among all */
    int32_t is_last_group;
    size_t row_step[2];                /* u16 from one tap row to the next, if is_vertical */
} block;

/* Add a part of K for one pair, or for two that compute the same tap rows. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
add_part(const block *b, const bi_part *p, const bi_pair *one, const bi_pair *other, int vectors,
         int pairs, bi_sums *sums)
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
            bi_add_entries_2x2(index, index_2, weight, entries, table[0], sums);
        else if (vectors == 4)
            bi_add_entries_4(index, index, weight, entries, table[0], sums);
        else if (vectors == 3)
            bi_add_entries_3(index, index, weight, entries, table[0], sums);
        else if (vectors == 2)
            bi_add_entries_2(index, index, weight, entries, table[0], sums);
        else
            bi_add_entries_1(index, index, weight, entries, table[0], sums);
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
    bi_separate(f, h, &a, &b);
    sum_words w = {{_mm256_and_si256(a, even), _mm256_srli_epi16(a, 8), _mm256_and_si256(b, even),
                    _mm256_srli_epi16(b, 8)}};
    return w;
}

/* Scale the results of eight channels, from channel c of the block on. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256
scale(const block *b, __m128i dot, int32_t c, const float *beta)
{
    __m256 y = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(dot));
    y = _mm256_mul_ps(y, _mm256_loadu_ps(b->alpha + c));
    if (beta != NULL)
        y = _mm256_mul_ps(y, _mm256_broadcast_ss(beta));
    return _mm256_add_ps(y, _mm256_loadu_ps(b->bias + c));
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) __m256
activate(const block *b, __m256 y, int32_t c)
{
    const __m256 zero = _mm256_setzero_ps();
    switch (b->step->activation) {
    case BI_ACTIVATION_RELU: return _mm256_max_ps(y, zero);
    case BI_ACTIVATION_PRELU:
        return _mm256_blendv_ps(y, _mm256_mul_ps(y, _mm256_loadu_ps(b->slope + c)),
                                _mm256_cmp_ps(y, zero, _CMP_LT_OQ));
    case BI_ACTIVATION_CLIP:
        y = _mm256_max_ps(y, _mm256_set1_ps(b->step->low));
        return _mm256_min_ps(y, _mm256_set1_ps(b->step->high));
    default: return y;
    }
}

/* Write 32 channels of one pixel, from channel c of the block on, as floats. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
write_floats(const block *b, const bi_pair *p, int which, int32_t c, __m256i even, __m256i odd,
             int any)
{
    size_t pixel = bi_pair_pixel(b->step, p, which);
    const float *beta = NULL, *residual = NULL;
    if (any && b->beta != NULL)
        beta = b->beta + pixel * (size_t)b->step->groups;
    if (any && b->residual != NULL)
        residual = b->residual + pixel * (size_t)b->step->out_c;
    __m256 y[4] = {
        scale(b, _mm256_castsi256_si128(even), c, beta),
        scale(b, _mm256_castsi256_si128(odd), c + 8, beta),
        scale(b, _mm256_extracti128_si256(even, 1), c + 16, beta),
        scale(b, _mm256_extracti128_si256(odd, 1), c + 24, beta),
    };
    int32_t first = b->first_channel + c, left = b->channels - c;
    float *target = (float *)(b->target + pixel * b->target_pixel) + first;
    if (left < LANES) {
        float rest[LANES];
        for (int i = 0; i < 4; i++)
            _mm256_storeu_ps(rest + 8 * i, y[i]);
        for (int32_t i = 0; i < left; i++) {
            float x = residual != NULL ? rest[i] + residual[first + i] : rest[i];
            target[i] = bi_activate(b->step, b->first_output + c + i, x);
        }
        return;
    }
    if (residual != NULL)
        BI_UNROLL for (int i = 0; i < 4; i++)
            y[i] = _mm256_add_ps(y[i], _mm256_loadu_ps(residual + first + 8 * i));
    if (any && b->step->activation != BI_ACTIVATION_NONE)
        BI_UNROLL for (int i = 0; i < 4; i++) y[i] = activate(b, y[i], c + 8 * i);
    BI_UNROLL for (int i = 0; i < 4; i++) _mm256_storeu_ps(target + 8 * i, y[i]);
}

/* Write 32 channels of one pixel, from channel c of the block on, as signs. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
write_signs(const block *b, const bi_pair *p, int which, int32_t c, __m256i even, __m256i odd)
{
    const int16_t *thresholds = b->thresholds + c;
    even = _mm256_cmpgt_epi16(_mm256_loadu_si256((const __m256i *)thresholds), even);
    odd = _mm256_cmpgt_epi16(_mm256_loadu_si256((const __m256i *)(thresholds + 16)), odd);
    uint32_t signs = (uint32_t)_mm256_movemask_epi8(_mm256_packs_epi16(even, odd));
    signs ^= (uint32_t)b->flips[c / LANES];
    int32_t left = b->channels - c, unit = (b->first_channel + c) / LANES;
    uint32_t *target =
        (uint32_t *)(b->target + bi_pair_pixel(b->step, p, which) * b->target_pixel);
    if (left < LANES)
        signs &= (1u << left) - 1;
    target[unit] = signs;
    /* The last word is whole, if only half of it has outputs. */
    int32_t units = b->step->out_c / LANES + (b->step->out_c % LANES != 0);
    if (left <= LANES && b->is_last_group && units % 2 != 0)
        target[unit + 1] = 0;
}

/* Finish 32 channels of one pixel, from channel c of the block on, from their sums of f. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
write_outputs(const block *b, const bi_pair *p, int which, int32_t c, __m256i even, __m256i odd,
              int output)
{
    const int16_t *constants = p->constants[which] + b->first_channel + c;
    __m256i parity = _mm256_set1_epi16(p->parity[which]);
    __m256i c_even = _mm256_loadu_si256((const __m256i *)constants);
    __m256i c_odd = _mm256_loadu_si256((const __m256i *)(constants + 16));
    even = _mm256_add_epi16(_mm256_slli_epi16(even, 2), _mm256_add_epi16(c_even, parity));
    odd = _mm256_add_epi16(_mm256_slli_epi16(odd, 2), _mm256_add_epi16(c_odd, parity));
    if (output == BI_SIGNS)
        write_signs(b, p, which, c, even, odd);
    else
        write_floats(b, p, which, c, even, odd, output == BI_ANY_FLOATS);
}

/* Finish a part of K: keep its sums, or add those kept before and write the outputs. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
finish_part(const block *b, const bi_pair *p, int vectors, const __m256i *f, const __m256i *h,
            int first, int last, __m256i *kept, int output)
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

static inline int may_join(const bi_pair *one, const bi_pair *other)
{
    return one->ky_first == other->ky_first && one->ky_end == other->ky_end &&
           one->is_vertical == other->is_vertical;
}

BI_TARGET_avx2 static inline __attribute__((always_inline)) void
run_tile(const block *b, const bi_pair *pairs, size_t count, int vectors, int output)
{
    __m256i kept[BI_LOOKUP_TILE][16];
    bi_part p = {0};
    int more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM, &p);
    for (int first = 1; more; first = 0) {
        bi_part now = p;
        more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM, &p);
        for (size_t i = 0; i < count; i++) {
            bi_sums sums;
            if (vectors == 2 && i + 1 < count && may_join(&pairs[i], &pairs[i + 1])) {
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
    BI_TARGET_avx2 static __attribute__((noinline)) void run_tile_##vectors##_##output(    \
        const block *b, const bi_pair *pairs, size_t count)                                \
    {                                                                                      \
        run_tile(b, pairs, count, vectors, output);                                        \
    }
#define DEFINE_RUN_TILES(vectors)            \
    DEFINE_RUN_TILE(vectors, BI_PLAIN_FLOATS) \
    DEFINE_RUN_TILE(vectors, BI_ANY_FLOATS)   \
    DEFINE_RUN_TILE(vectors, BI_SIGNS)
DEFINE_RUN_TILES(1)
DEFINE_RUN_TILES(2)
DEFINE_RUN_TILES(3)
DEFINE_RUN_TILES(4)

static void (*const run_tiles[4][3])(const block *b, const bi_pair *pairs, size_t count) = {
#define RUN_TILES(vectors)                                                        \
    {run_tile_##vectors##_BI_PLAIN_FLOATS, run_tile_##vectors##_BI_ANY_FLOATS,    \
     run_tile_##vectors##_BI_SIGNS}
    RUN_TILES(1), RUN_TILES(2), RUN_TILES(3), RUN_TILES(4)};

static void run_blocks(const bi_step *s, const bi_pointers *at, int32_t group,
                       const bi_pair *pairs, size_t count)
{
    const bi_lookup *shape = s->weight;
    const char *base = (const char *)shape;
    size_t k = (size_t)(s->kernel_h * s->kernel_w) * (size_t)shape->entries;
    size_t padded = (size_t)shape->vectors * LANES;
    size_t first = (size_t)group * (size_t)shape->outputs;
    block b = {
        .step = s,
        .shape = shape,
        .target = (char *)at->target + (s->threshold != NULL ? first / 8 : first * sizeof(float)),
        .target_pixel = bi_target_pixel_bytes(s),
        .residual = at->residual != NULL ? at->residual + first : NULL,
        .beta = at->beta != NULL ? at->beta + group : NULL,
        .weights = (const uint8_t *)base + shape->weights + (size_t)group * padded * k,
        .alpha = (const float *)(base + shape->alpha) + (size_t)group * padded,
        .bias = (const float *)(base + shape->bias) + (size_t)group * padded,
        .slope = (const float *)(base + shape->slope) + (size_t)group * padded,
        .thresholds = (const int16_t *)(base + shape->thresholds) + (size_t)group * padded,
        .flips = (const uint64_t *)(base + shape->flips) + group * shape->vectors,
        .first_output = group * shape->outputs,
        .is_last_group = group == s->groups - 1,
        .channels = shape->outputs,
        .row_step = {(size_t)(s->dilation_h * shape->plane_w) * (size_t)shape->entries,
                     (size_t)(s->dilation_h * shape->reach_w) * (size_t)shape->entries},
    };
    bi_lookup_output output = bi_lookup_output_of(s);
    for (int32_t left = shape->vectors, vectors; left > 0; left -= vectors) {
        vectors = bi_lookup_block(left);
        run_tiles[vectors - 1][output](&b, pairs, count);
        b.first_channel += vectors * LANES;
        b.channels -= vectors * LANES;
        b.weights += (size_t)vectors * LANES * k;
        b.alpha += vectors * LANES;
        b.bias += vectors * LANES;
        b.slope += vectors * LANES;
        b.thresholds += vectors * LANES;
        b.flips += vectors;
        b.first_output += vectors * LANES;
    }
}

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    const bi_lookup *shape = s->weight;
    if (shape->entries == 0) {
        bi_step other = *s;
        other.weight = shape + 1;
        bi_bconv2d_words_avx2.run(&other, at, begin, end);
        return;
    }
    layout parts = layout_of(s, shape);
    const char *scratch = at->scratch;
    size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
    for (int32_t g = 0; g < s->groups; g++) {
        bi_lookup_group planes = {
            .plane = (const uint16_t *)(scratch + parts.pairs) + (size_t)g * parts.pairs_u16,
            .vertical = (const uint16_t *)(scratch + parts.columns) + (size_t)g * parts.columns_u16,
            .vertical_w = shape->reach_w,
            .parities = (const uint16_t *)(scratch + parts.parities) + (size_t)g * pixels,
        };
        bi_lookup_for_pairs(s, at, g, &planes, begin, end, run_blocks);
    }
}

const bi_kernel bi_bconv2d_avx2 = {
    .weight_bytes = weight_bytes,
    .pack_weight = pack_weight,
    .scratch_bytes = scratch_bytes,
    .stage = stage,
    .run = run,
};
#endif
