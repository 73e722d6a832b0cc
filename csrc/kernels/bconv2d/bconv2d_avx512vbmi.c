/* bconv2d_avx512vbmi.c -- binary convolution by table look-up with 64 channels and two pixels to a
 * vector (lookup.h has the arithmetic, lookup_avx512.h the inner loop).
 *
 * Scratch, per group: the plane, u16 [plane_h][plane_w][entries]: 64 times the entry, the offset of
 * its table.  Unlike bconv2d_avx2.c's, an entry belongs to one pixel, so any two can be paired.
 *
 * Shapes that would leave half of the vectors empty (up to 64 outputs) go to the popcount kernel
 * (bconv2d_words_avx512vbmi.c), dilated ones and those with more groups to the AVX2 kernel; their
 * packed weight then follows an empty header.
 */
#if defined(__x86_64__)
#include "../isa.h"
#include "lookup.h"
#include "lookup_avx512.h"

extern const bi_kernel bi_bconv2d_avx2, bi_bconv2d_words_avx512vbmi;

enum { LANES = 64, BITS = 6, HEADER = (sizeof(bi_lookup) + 63) / 64 * 64 };

#define BI_UNROLL _Pragma("GCC unroll 8")

/* Row a, byte w: f(a, w), in the low digit, then the same in the high digit. */
static const uint8_t tables[2][64][64] __attribute__((aligned(64))) = {
#define ONES(n) \
    (((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3 & 1) + ((n) >> 4 & 1) + ((n) >> 5 & 1))
#define F(a, w) ((6 - ONES((a) ^ (w)) + ONES(w) % 2 - ONES(a) % 2) / 2)
#define BYTES8(a, w, d)                                                                        \
    F(a, w) << d, F(a, (w) + 1) << d, F(a, (w) + 2) << d, F(a, (w) + 3) << d,                  \
        F(a, (w) + 4) << d, F(a, (w) + 5) << d, F(a, (w) + 6) << d, F(a, (w) + 7) << d
#define ROW(a, d)                                                                              \
    {BYTES8(a, 0, d),  BYTES8(a, 8, d),  BYTES8(a, 16, d), BYTES8(a, 24, d),                   \
     BYTES8(a, 32, d), BYTES8(a, 40, d), BYTES8(a, 48, d), BYTES8(a, 56, d)}
#define ROWS4(a, d) ROW(a, d), ROW((a) + 1, d), ROW((a) + 2, d), ROW((a) + 3, d)
#define ROWS16(a, d) ROWS4(a, d), ROWS4((a) + 4, d), ROWS4((a) + 8, d), ROWS4((a) + 12, d)
#define ROWS64(d) {ROWS16(0, d), ROWS16(16, d), ROWS16(32, d), ROWS16(48, d)}
    ROWS64(0), ROWS64(4)};

static int describe(const bi_step *s, bi_lookup *shape)
{
    return s->dilation_w == 1 && s->out_c / s->groups > LANES &&
           bi_lookup_describe(s, BITS, LANES, shape);
}

/* The kernel for shapes that describe() refuses. */
static const bi_kernel *other_kernel(const bi_step *s)
{
    int few = s->dilation_w == 1 && s->groups == 1 && s->out_c <= LANES;
    return few ? &bi_bconv2d_words_avx512vbmi : &bi_bconv2d_avx2;
}

/* Where the parts of the scratch begin, for one group after the other; bytes. */
typedef struct {
    size_t plane, parities, odd, total;
    size_t plane_u16;    /* of one group */
} layout;

static layout layout_of(const bi_step *s, const bi_lookup *shape)
{
    size_t groups = (size_t)s->groups, plane_w = (size_t)shape->plane_w;
    size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
    layout at;
    /* A vertical pair whose lower pixel is missing still reads one stride further down. */
    at.plane_u16 = (size_t)(shape->plane_h + s->stride_h) * plane_w * (size_t)shape->entries;
    at.plane = (bi_bconv2d_scratch_bytes(s) + 63) / 64 * 64;
    at.parities = at.plane + (groups * at.plane_u16 * 2 + 63) / 64 * 64;
    at.odd = at.parities + (groups * pixels * 2 + 63) / 64 * 64;
    at.total = at.odd + (size_t)(shape->plane_h + 1) * plane_w * 2;
    return at;
}

static size_t weight_bytes(const bi_step *s)
{
    bi_lookup shape;
    return describe(s, &shape) ? shape.total_bytes
                               : HEADER + other_kernel(s)->weight_bytes(s);
}

static void pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_lookup shape;
    if (describe(s, &shape)) {
        bi_lookup_pack(s, &shape, canonical, packed);
        return;
    }
    memset(packed, 0, sizeof shape);
    other_kernel(s)->pack_weight(s, canonical, (char *)packed + HEADER);
}

/* The step as the other kernel sees it, or 0 if this one runs it. */
static int delegate(const bi_step *s, bi_step *other)
{
    if (((const bi_lookup *)s->weight)->entries != 0)
        return 0;
    *other = *s;
    other->weight = (const char *)s->weight + HEADER;
    return 1;
}

static size_t scratch_bytes(const bi_step *s)
{
    bi_lookup shape;
    if (describe(s, &shape))
        return layout_of(s, &shape).total;
    const bi_kernel *other = other_kernel(s);
    return other->scratch_bytes != NULL ? other->scratch_bytes(s) : 0;
}

/* Write the entries of one pixel; return how many are odd.  Eight entries come from six bytes. */
BI_TARGET_avx512vbmi static inline int32_t write_pixel(const uint64_t *pixel, size_t words,
                                                       int32_t entries, uint16_t *to)
{
    /* Six bytes to every eight, then a window of eight bits every six. */
    const __m512i spread = _mm512_set_epi64(
        0x2f2e2d2c2b2aLL, 0x292827262524LL, 0x232221201f1eLL, 0x1d1c1b1a1918LL, 0x171615141312LL,
        0x11100f0e0d0cLL, 0x0b0a09080706LL, 0x050403020100LL);
    const __m512i windows = _mm512_set1_epi64(0x2a241e18120c0600LL);
    int32_t odd = 0;
    const char *bytes = (const char *)pixel;
    size_t left = words * 8;
    for (; entries > 0; entries -= 64, bytes += 48, left -= 48, to += 64) {
        __mmask64 here = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
        __m512i raw = _mm512_maskz_loadu_epi8(here, bytes);
        raw = _mm512_permutexvar_epi8(spread, raw);
        __m512i six = _mm512_and_si512(_mm512_multishift_epi64_epi8(windows, raw),
                                       _mm512_set1_epi8(63));
        __mmask64 wanted = entries >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << entries) - 1;
        __mmask64 is_odd = _mm512_mask_test_epi8_mask(wanted, _mm512_popcnt_epi8(six),
                                                      _mm512_set1_epi8(1));
        odd += (int32_t)__builtin_popcountll(is_odd);
        __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(six));
        _mm512_mask_storeu_epi16(to, (__mmask32)wanted, _mm512_slli_epi16(low, 6));
        if (entries > 32) {
            __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(six, 1));
            _mm512_mask_storeu_epi16(to + 32, (__mmask32)(wanted >> 32),
                                     _mm512_slli_epi16(high, 6));
        }
    }
    return odd;
}

BI_TARGET_avx512vbmi static void stage(const bi_step *s, const bi_pointers *at)
{
    bi_step other;
    if (delegate(s, &other)) {
        if (other_kernel(s)->stage != NULL)
            other_kernel(s)->stage(&other, at);
        return;
    }
    const bi_lookup *shape = s->weight;
    bi_bconv2d_stage(s, at);
    layout parts = layout_of(s, shape);
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    size_t plane_w = (size_t)shape->plane_w, entries = (size_t)shape->entries;
    int32_t end_x = s->in_w + s->pad_left;
    end_x = end_x < shape->plane_w ? end_x : shape->plane_w;
    for (int32_t g = 0; g < s->groups; g++) {
        uint16_t *plane = (uint16_t *)((char *)at->scratch + parts.plane) +
                          (size_t)g * parts.plane_u16;
        uint16_t *odd = (uint16_t *)((char *)at->scratch + parts.odd);
        memset(odd, 0, (size_t)shape->plane_h * plane_w * sizeof *odd);
        for (int32_t y = 0; y < shape->plane_h + s->stride_h; y++) {
            uint16_t *row = plane + (size_t)y * plane_w * entries;
            int32_t from = y - s->pad_top;
            if (from < 0 || from >= s->in_h || y >= shape->plane_h || s->pad_left >= end_x) {
                memset(row, 0, plane_w * entries * sizeof *row);
                continue;
            }
            memset(row, 0, (size_t)s->pad_left * entries * sizeof *row);
            memset(row + (size_t)end_x * entries, 0,
                   (size_t)(shape->plane_w - end_x) * entries * sizeof *row);
            const uint64_t *pixel = bi_bconv2d_source(s, at) + (size_t)g * group.words +
                                    (size_t)from * (size_t)s->in_w * group.pixel_words;
            for (int32_t x = s->pad_left; x < end_x; x++, pixel += group.pixel_words)
                odd[(size_t)y * plane_w + (size_t)x] = (uint16_t)write_pixel(
                    pixel, group.words, shape->entries, row + (size_t)x * entries);
        }
        bi_lookup_sum_parities(s, shape, odd,
                               (uint16_t *)((char *)at->scratch + parts.parities) +
                                   (size_t)g * (size_t)s->out_h * (size_t)s->out_w);
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
    size_t row_step, apart[2];         /* bytes: between tap rows; from A to B, if is_vertical */
} block;

/* Add a part of K for up to three pairs that lie alike. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
add_part(const block *b, const bi_part *p, const bi_pair *const *pair, int vectors,
         bi_sums_vbmi *sums)
{
    int32_t segment = p->segment > pair[0]->ky_first ? p->segment : pair[0]->ky_first;
    int32_t end = p->segment_end < pair[0]->ky_end ? p->segment_end : pair[0]->ky_end;
    if (segment >= end) {
        BI_UNROLL for (int i = 0; i < 8; i++) sums->f[i] = sums->h[i] = _mm512_setzero_si512();
        return;
    }
    size_t offset = (size_t)segment * (b->row_step / 2) + (size_t)p->entry;
    const uint8_t *weight =
        b->weights + ((size_t)segment * (size_t)b->shape->segment_entries + (size_t)p->entry) *
                         ((size_t)vectors * LANES);
    size_t segments = (size_t)(end - segment), entries = (size_t)p->entries;
    size_t apart = b->apart[pair[0]->is_vertical];
    const uint16_t *index0 = pair[0]->index + offset, *index1 = pair[1]->index + offset;
    const uint16_t *index2 = pair[2]->index + offset;
    if (vectors == 4)
        bi_add_part_2x4(index0, index1, index2, apart, b->row_step, weight, segments, entries,
                        tables[0][0], sums);
    else if (vectors == 3)
        bi_add_part_2x3(index0, index1, index2, apart, b->row_step, weight, segments, entries,
                        tables[0][0], sums);
    else
        bi_add_part_3x2(index0, index1, index2, apart, b->row_step, weight, segments, entries,
                        tables[0][0], sums);
}

BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) __m512
activate(const block *b, __m512 y, int32_t c)
{
    const __m512 zero = _mm512_setzero_ps();
    switch (b->step->activation) {
    case BI_ACTIVATION_RELU: return _mm512_max_ps(y, zero);
    case BI_ACTIVATION_PRELU:
        return _mm512_mask_mul_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), y,
                                  _mm512_loadu_ps(b->slope + c));
    case BI_ACTIVATION_CLIP:
        y = _mm512_max_ps(y, _mm512_set1_ps(b->step->low));
        return _mm512_min_ps(y, _mm512_set1_ps(b->step->high));
    default: return y;
    }
}

/* Write sixteen channels of one pixel, from channel c of the block on, as floats. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
write_sixteen(const block *b, size_t pixel, int32_t c, __m256i dot, int any)
{
    int32_t first = b->first_channel + c, left = b->channels - c;
    if (left <= 0)
        return;
    __mmask16 here = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    __m512 y = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(dot));
    y = _mm512_mul_ps(y, _mm512_loadu_ps(b->alpha + c));
    if (any && b->beta != NULL)
        y = _mm512_mul_ps(y, _mm512_set1_ps(b->beta[pixel * (size_t)b->step->groups]));
    y = _mm512_add_ps(y, _mm512_loadu_ps(b->bias + c));
    if (any && b->residual != NULL)
        y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(here, b->residual + first +
                                                             pixel * (size_t)b->step->out_c));
    if (any && b->step->activation != BI_ACTIVATION_NONE)
        y = activate(b, y, c);
    _mm512_mask_storeu_ps((float *)(b->target + pixel * b->target_pixel) + first, here, y);
}

/* Write 64 channels of one pixel, from channel c of the block on, as signs.  A mask has the even or
 * the odd eights of the channels. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
write_signs(const block *b, const bi_pair *p, int which, int32_t c, __m512i even, __m512i odd)
{
    const int16_t *thresholds = b->thresholds + c;
    uint64_t even_signs = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(thresholds), even);
    uint64_t odd_signs = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(thresholds + 32), odd);
    uint64_t signs = _pdep_u64(even_signs, UINT64_C(0x00ff00ff00ff00ff)) |
                     _pdep_u64(odd_signs, UINT64_C(0xff00ff00ff00ff00));
    signs ^= b->flips[c / LANES];
    int32_t left = b->channels - c;
    if (left < LANES)
        signs &= (UINT64_C(1) << left) - 1;
    uint64_t *target =
        (uint64_t *)(b->target + bi_pair_pixel(b->step, p, which) * b->target_pixel);
    target[(b->first_channel + c) / LANES] = signs;
}

/* Finish 64 channels of one pixel, from channel c of the block on, from their sums of f. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
write_outputs(const block *b, const bi_pair *p, int which, int32_t c, __m512i even, __m512i odd,
              int output)
{
    const int16_t *constants = p->constants[which] + b->first_channel + c;
    __m512i parity = _mm512_set1_epi16(p->parity[which]);
    __m512i c_even = _mm512_loadu_si512(constants), c_odd = _mm512_loadu_si512(constants + 32);
    even = _mm512_add_epi16(_mm512_slli_epi16(even, 2), _mm512_add_epi16(c_even, parity));
    odd = _mm512_add_epi16(_mm512_slli_epi16(odd, 2), _mm512_add_epi16(c_odd, parity));
    if (output == BI_SIGNS) {
        write_signs(b, p, which, c, even, odd);
        return;
    }
    int any = output == BI_ANY_FLOATS;
    size_t pixel = bi_pair_pixel(b->step, p, which);
    /* Each 128 bits hold channels 16 i .. 16 i + 7 (even) and 16 i + 8 .. 16 i + 15 (odd). */
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    __m512i low = _mm512_permutex2var_epi64(even, first, odd);
    __m512i high = _mm512_permutex2var_epi64(even, second, odd);
    write_sixteen(b, pixel, c, _mm512_castsi512_si256(low), any);
    write_sixteen(b, pixel, c + 16, _mm512_extracti64x4_epi64(low, 1), any);
    write_sixteen(b, pixel, c + 32, _mm512_castsi512_si256(high), any);
    write_sixteen(b, pixel, c + 48, _mm512_extracti64x4_epi64(high, 1), any);
}

/* Finish a part of K for one pair: keep its sums, or add those kept before and write the outputs.
 * The sums of vector v are number v * pairs + index. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
finish_part(const block *b, const bi_pair *p, int vectors, int pairs, int index,
            const bi_sums_vbmi *sums, int first, int last, __m512i *kept, int output)
{
    const __m512i even = _mm512_set1_epi16(0x00ff);
    BI_UNROLL for (int v = 0; v < vectors; v++) {
        __m512i a, bb;
        bi_separate_vbmi(sums->f[v * pairs + index], sums->h[v * pairs + index], &a, &bb);
        __m512i word[4] = {_mm512_and_si512(a, even), _mm512_srli_epi16(a, 8),
                           _mm512_and_si512(bb, even), _mm512_srli_epi16(bb, 8)};
        if (!first)
            BI_UNROLL for (int i = 0; i < 4; i++)
                word[i] = _mm512_add_epi16(word[i], kept[4 * v + i]);
        if (!last) {
            BI_UNROLL for (int i = 0; i < 4; i++) kept[4 * v + i] = word[i];
            continue;
        }
        write_outputs(b, p, 0, v * LANES, word[0], word[1], output);
        if (!p->is_alone)
            write_outputs(b, p, 1, v * LANES, word[2], word[3], output);
    }
}

static inline int lie_alike(const bi_pair *one, const bi_pair *other)
{
    return one->ky_first == other->ky_first && one->ky_end == other->ky_end &&
           one->is_vertical == other->is_vertical;
}

BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
run_tile(const block *b, const bi_pair *pairs, size_t count, int vectors, int at_once, int output)
{
    __m512i kept[BI_LOOKUP_TILE][16];
    bi_part p = {0};
    int more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM_VBMI, &p);
    for (int first = 1; more; first = 0) {
        bi_part now = p;
        more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM_VBMI, &p);
        for (size_t i = 0; i < count;) {
            const bi_pair *pair[3] = {&pairs[i], &pairs[i], &pairs[i]};
            int together = 1;
            while (together < at_once && i + (size_t)together < count &&
                   lie_alike(&pairs[i], &pairs[i + (size_t)together])) {
                pair[together] = &pairs[i + (size_t)together];
                together++;
            }
            bi_sums_vbmi sums;
            add_part(b, &now, pair, vectors, &sums);
            BI_UNROLL for (int j = 0; j < at_once; j++)
                if (j < together)
                    finish_part(b, pair[j], vectors, at_once, j, &sums, first, !more,
                                kept[i + (size_t)j], output);
            i += (size_t)together;
        }
    }
}

#define DEFINE_RUN_TILE(vectors, at_once, output)                                             \
    BI_TARGET_avx512vbmi static __attribute__((noinline)) void run_tile_##vectors##_##output( \
        const block *b, const bi_pair *pairs, size_t count)                                   \
    {                                                                                         \
        run_tile(b, pairs, count, vectors, at_once, output);                                  \
    }
#define DEFINE_RUN_TILES(vectors, at_once)            \
    DEFINE_RUN_TILE(vectors, at_once, BI_PLAIN_FLOATS) \
    DEFINE_RUN_TILE(vectors, at_once, BI_ANY_FLOATS)   \
    DEFINE_RUN_TILE(vectors, at_once, BI_SIGNS)
DEFINE_RUN_TILES(2, 3)
DEFINE_RUN_TILES(3, 2)
DEFINE_RUN_TILES(4, 2)

static void (*const run_tiles[3][3])(const block *b, const bi_pair *pairs, size_t count) = {
#define RUN_TILES(vectors)                                                        \
    {run_tile_##vectors##_BI_PLAIN_FLOATS, run_tile_##vectors##_BI_ANY_FLOATS,    \
     run_tile_##vectors##_BI_SIGNS}
    RUN_TILES(2), RUN_TILES(3), RUN_TILES(4)};

static void run_blocks(const bi_step *s, const bi_pointers *at, int32_t group,
                       const bi_pair *pairs, size_t count)
{
    const bi_lookup *shape = s->weight;
    const char *base = (const char *)shape;
    size_t k = (size_t)(s->kernel_h * s->kernel_w) * (size_t)shape->entries;
    size_t padded = (size_t)shape->vectors * LANES;
    size_t row_step = (size_t)(s->dilation_h * shape->plane_w) * (size_t)shape->entries * 2;
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
        .channels = shape->outputs,
        .row_step = row_step,
        .apart = {(size_t)s->stride_w * (size_t)shape->entries * 2,
                  (size_t)s->stride_h * (size_t)shape->plane_w * (size_t)shape->entries * 2},
    };
    bi_lookup_output output = bi_lookup_output_of(s);
    for (int32_t left = shape->vectors, vectors; left > 0; left -= vectors) {
        vectors = bi_lookup_block(left);
        run_tiles[vectors - 2][output](&b, pairs, count);
        b.first_channel += vectors * LANES;
        b.channels -= vectors * LANES;
        b.weights += (size_t)vectors * LANES * k;
        b.alpha += vectors * LANES;
        b.bias += vectors * LANES;
        b.slope += vectors * LANES;
        b.thresholds += vectors * LANES;
        b.flips += vectors;
    }
}

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    bi_step other;
    if (delegate(s, &other)) {
        other_kernel(s)->run(&other, at, begin, end);
        return;
    }
    const bi_lookup *shape = s->weight;
    layout parts = layout_of(s, shape);
    const char *scratch = at->scratch;
    size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
    for (int32_t g = 0; g < s->groups; g++) {
        const uint16_t *plane =
            (const uint16_t *)(scratch + parts.plane) + (size_t)g * parts.plane_u16;
        bi_lookup_group planes = {
            .plane = plane,
            .vertical = plane,
            .vertical_w = shape->plane_w,
            .vertical_x = (s->out_w - 1) * s->stride_w,
            .parities = (const uint16_t *)(scratch + parts.parities) + (size_t)g * pixels,
        };
        bi_lookup_for_pairs(s, at, g, &planes, begin, end, run_blocks);
    }
}

const bi_kernel bi_bconv2d_avx512vbmi = {
    .weight_bytes = weight_bytes,
    .pack_weight = pack_weight,
    .scratch_bytes = scratch_bytes,
    .stage = stage,
    .run = run,
};
#endif
