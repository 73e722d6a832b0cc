/* bconv2d_neon.c -- binary convolution by table look-up (lookup.h has the arithmetic,
 * lookup_neon.h the inner loop), 16 channels and two pixels to a vector.
 *
 * The scratch and the order of the loops are those of bconv2d_avx2.c: a plane of pairs of
 * neighbouring pixels, u16 [plane_h][plane_w][entries], each 16 * (a | b << 4), the offset of its
 * table; a narrow one of vertical pairs for the last column, if out_w is odd; tile of pairs ->
 * block of 1 to 4 vectors -> part of K -> one pair, or two that compute the same tap rows.
 *
 * Shapes that are not for tables go to the portable kernel, whose packed weight then follows an
 * empty header.  The speed of this kernel has not been measured.
 */
#if defined(__aarch64__)
#include "lookup.h"
#include "lookup_neon.h"

extern const bi_kernel bi_bconv2d_portable;

enum { LANES = 16, BITS = 4, SLACK = 64 };

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
    size_t pairs, columns, parities, odd, total;    /* bytes */
    size_t pairs_u16, columns_u16;                  /* of one group */
} layout;

static layout layout_of(const bi_step *s, const bi_lookup *shape)
{
    size_t groups = (size_t)s->groups, entries = (size_t)shape->entries;
    size_t plane_h = (size_t)shape->plane_h, plane_w = (size_t)shape->plane_w;
    size_t reach_w = (size_t)shape->reach_w;
    layout at;
    at.pairs_u16 = plane_h * plane_w * entries + SLACK;
    at.columns_u16 = s->out_w % 2 != 0 ? plane_h * reach_w * entries + SLACK : 0;
    at.pairs = (bi_bconv2d_scratch_bytes(s) + 63) / 64 * 64;
    at.columns = at.pairs + (groups * at.pairs_u16 * 2 + 63) / 64 * 64;
    at.parities = at.columns + (groups * at.columns_u16 * 2 + 63) / 64 * 64;
    at.odd = at.parities + (groups * (size_t)s->out_h * (size_t)s->out_w * 2 + 63) / 64 * 64;
    at.total = at.odd + (plane_h + 1) * plane_w * 2;
    return at;
}

static size_t weight_bytes(const bi_step *s)
{
    bi_lookup shape;
    if (!bi_lookup_describe(s, BITS, LANES, &shape))
        return bi_bconv2d_portable.weight_bytes(s) + sizeof shape;
    return shape.total_bytes;
}

/* The header of a packed weight for the other kernel has no entries. */
static void pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_lookup shape;
    if (bi_lookup_describe(s, BITS, LANES, &shape)) {
        bi_lookup_pack(s, &shape, canonical, packed);
        return;
    }
    memset(packed, 0, sizeof shape);
    bi_bconv2d_portable.pack_weight(s, canonical, (char *)packed + sizeof shape);
}

static size_t scratch_bytes(const bi_step *s)
{
    bi_lookup shape;
    if (!bi_lookup_describe(s, BITS, LANES, &shape))
        return bi_bconv2d_portable.scratch_bytes(s);
    return layout_of(s, &shape).total;
}

/* Write the entries of the pairs (a[k], b[k]), 16 to a word. */
BI_TARGET_neon static inline void write_pairs(const uint64_t *a, const uint64_t *b, size_t words,
                                              uint16_t *to)
{
    for (size_t k = 0; k < words; k++, to += 16) {
        uint8x8_t x = vreinterpret_u8_u64(vld1_u64(a + k));
        uint8x8_t y = vreinterpret_u8_u64(vld1_u64(b + k));
        uint8x8_t even = vsli_n_u8(x, y, 4), odd = vsri_n_u8(y, x, 4);
        vst1q_u16(to, vshll_n_u8(vzip1_u8(even, odd), 4));
        vst1q_u16(to + 8, vshll_n_u8(vzip2_u8(even, odd), 4));
    }
}

/* Write the entries of a padded row for `count` columns from column `x` on: column j is paired with
 * the pixel `step` columns further in the row `other`.  A row outside the map is NULL.
 * Stray bits are 0, so the up to 15 entries that are written past a pixel's last are 0 too: right
 * for padding, and overwritten by the next pixel. */
BI_TARGET_neon static void write_row(const bi_step *s, const bi_lookup *shape, const uint64_t *row,
                                     const uint64_t *other, size_t pixel_words, int32_t step,
                                     int32_t x, int32_t count, uint16_t *to)
{
    static const uint64_t padding[1 << 9] = {0};    /* K < 2^15 */
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

/* Entries of a pixel that have an odd number of ones. */
BI_TARGET_neon static inline uint16_t odd_entries(const uint64_t *pixel, size_t words)
{
    uint16x4_t total = vdup_n_u16(0);
    for (size_t k = 0; k < words; k++) {
        uint8x8_t x = vreinterpret_u8_u64(vld1_u64(pixel + k));
        x = veor_u8(x, vshr_n_u8(x, 1));
        x = veor_u8(x, vshr_n_u8(x, 2));
        total = vpadal_u8(total, vcnt_u8(vand_u8(x, vdup_n_u8(0x11))));
    }
    return vaddv_u16(total);
}

/* Count the odd entries of every pixel of the padded map. */
BI_TARGET_neon static void count_odd(const bi_step *s, const bi_lookup *shape,
                                     const uint64_t *source, size_t pixel_words, uint16_t *odd)
{
    size_t plane_w = (size_t)shape->plane_w, words = bi_words(shape->channels);
    int32_t from = s->pad_left, end = s->in_w + from;
    end = end < shape->plane_w ? end : shape->plane_w;
    memset(odd, 0, (size_t)shape->plane_h * plane_w * sizeof *odd);
    for (int32_t y = 0; y < s->in_h && y + s->pad_top < shape->plane_h; y++) {
        uint16_t *row = odd + (size_t)(y + s->pad_top) * plane_w;
        const uint64_t *pixel = source + (size_t)y * (size_t)s->in_w * pixel_words;
        for (int32_t x = from; x < end; x++, pixel += pixel_words)
            row[x] = odd_entries(pixel, words);
    }
}

/* Row y of the padded map, or NULL if it is padding. */
static inline const uint64_t *padded_row(const bi_step *s, const uint64_t *source,
                                         size_t pixel_words, int32_t y)
{
    y -= s->pad_top;
    return y < 0 || y >= s->in_h ? NULL : source + (size_t)y * (size_t)s->in_w * pixel_words;
}

BI_TARGET_neon static void stage(const bi_step *s, const bi_pointers *at)
{
    const bi_lookup *shape = s->weight;
    bi_bconv2d_stage(s, at);
    if (shape->entries == 0)
        return;
    layout parts = layout_of(s, shape);
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    char *scratch = at->scratch;
    size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
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
    uint64_t flips;                    /* of all its channels */
    size_t stray_bytes;                /* of the target's last word, behind the block */
    int32_t first_channel, channels;   /* the block's, within the group; the group's, from there */
    size_t row_step[2];                /* u16 from one tap row to the next, if is_vertical */
} block;

/* Add a part of K for one pair, or for two that compute the same tap rows. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
add_part(const block *b, const bi_part *p, const bi_pair *one, const bi_pair *other, int vectors,
         int pairs, bi_sums_neon *sums)
{
    const bi_lookup *shape = b->shape;
    size_t segment_entries = (size_t)shape->segment_entries, entries = (size_t)p->entries;
    int32_t per_row = shape->segments_per_row;
    int32_t segment = one->ky_first * per_row, end = one->ky_end * per_row;
    segment = p->segment > segment ? p->segment : segment;
    end = p->segment_end < end ? p->segment_end : end;
    BI_UNROLL for (int v = 0; v < vectors * pairs; v++)
        sums->f[v] = sums->h[v] = vdupq_n_u8(0);
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
        bi_add_entries_neon(index, index_2, weight, entries, table[0], vectors, pairs, sums);
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

/* The sums of a vector as words, of pixel A, even and odd channels, and of pixel B; added to those
 * kept before unless they are the first. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
widen(uint8x16_t f, uint8x16_t h, int first, uint16x8_t kept[4])
{
    const uint16x8_t even = vdupq_n_u16(0x00ff);
    uint8x16_t a, b;
    bi_separate_neon(f, h, &a, &b);
    uint16x8_t a_words = vreinterpretq_u16_u8(a), b_words = vreinterpretq_u16_u8(b);
    uint16x8_t word[4] = {vandq_u16(a_words, even), vshrq_n_u16(a_words, 8),
                          vandq_u16(b_words, even), vshrq_n_u16(b_words, 8)};
    BI_UNROLL for (int i = 0; i < 4; i++) kept[i] = first ? word[i] : vaddq_u16(kept[i], word[i]);
}

BI_TARGET_neon static inline __attribute__((always_inline)) float32x4_t
activate(const block *b, float32x4_t y, int32_t c)
{
    const float32x4_t zero = vdupq_n_f32(0);    /* compared: vmaxq would return NaN for NaN */
    switch (b->step->activation) {
    case BI_ACTIVATION_RELU: return vbslq_f32(vcgtq_f32(y, zero), y, zero);
    case BI_ACTIVATION_PRELU:
        return vbslq_f32(vcltq_f32(y, zero), vmulq_f32(y, vld1q_f32(b->slope + c)), y);
    case BI_ACTIVATION_CLIP: {
        float32x4_t low = vdupq_n_f32(b->step->low), high = vdupq_n_f32(b->step->high);
        y = vbslq_f32(vcgtq_f32(y, low), y, low);
        return vbslq_f32(vcltq_f32(y, high), y, high);
    }
    default: return y;
    }
}

/* Write 16 channels of one pixel, from channel c of the block on, as floats. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
write_floats(const block *b, const bi_pair *p, int which, int32_t c, int16x8_t even, int16x8_t odd,
             int any)
{
    size_t pixel = bi_pair_pixel(b->step, p, which);
    int32_t first = b->first_channel + c, left = b->channels - c;
    float *target = (float *)(b->target + pixel * b->target_pixel) + first;
    const float *residual = NULL;
    if (any && b->residual != NULL)
        residual = b->residual + pixel * (size_t)b->step->out_c + first;
    float rest[LANES] = {0};    /* stands in for what has fewer than 16 channels */
    if (residual != NULL && left < LANES) {
        memcpy(rest, residual, (size_t)left * sizeof *rest);
        residual = rest;
    }
    float32x4_t y[4] = {
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(even))), vcvtq_f32_s32(vmovl_high_s16(even)),
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(odd))), vcvtq_f32_s32(vmovl_high_s16(odd))};
    BI_UNROLL for (int i = 0; i < 4; i++) {
        y[i] = vmulq_f32(y[i], vld1q_f32(b->alpha + c + 4 * i));
        if (any && b->beta != NULL)
            y[i] = vmulq_n_f32(y[i], b->beta[pixel * (size_t)b->step->groups]);
        y[i] = vaddq_f32(y[i], vld1q_f32(b->bias + c + 4 * i));
        if (residual != NULL)
            y[i] = vaddq_f32(y[i], vld1q_f32(residual + 4 * i));
    }
    if (any && b->step->activation != BI_ACTIVATION_NONE)
        BI_UNROLL for (int i = 0; i < 4; i++) y[i] = activate(b, y[i], c + 4 * i);
    float *to = left < LANES ? rest : target;
    BI_UNROLL for (int i = 0; i < 4; i++) vst1q_f32(to + 4 * i, y[i]);
    if (left < LANES)
        memcpy(target, rest, (size_t)left * sizeof *rest);
}

/* Write a block of one pixel as signs; below[v] has 0xff for channels under their thresholds. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
write_signs(const block *b, const bi_pair *p, int which, int vectors, const uint8x16_t *below)
{
    uint64_t signs = bi_mask_bits_neon(below) ^ b->flips;
    if (b->channels < 64)
        signs &= (UINT64_C(1) << b->channels) - 1;
    char *target = b->target + bi_pair_pixel(b->step, p, which) * b->target_pixel +
                   b->first_channel / 8;
    memcpy(target, &signs, (size_t)vectors * (LANES / 8));
    if (b->stray_bytes != 0)
        memset(target + vectors * (LANES / 8), 0, b->stray_bytes);
}

/* Finish one pixel of a block from its sums of f: sums[4 v] of the even channels of vector v and
 * sums[4 v + 1] of the odd ones. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
write_outputs(const block *b, const bi_pair *p, int which, int vectors,
              const uint16x8_t *sums, int output)
{
    uint8x16_t masks[4];
    BI_UNROLL for (int v = 0; v < 4; v++) masks[v] = vdupq_n_u8(0);
    uint16x8_t parity = vdupq_n_u16((uint16_t)p->parity[which]);
    BI_UNROLL for (int v = 0; v < vectors; v++) {
        int32_t c = v * LANES;
        /* Unsigned, since what is added may wrap and only the result must fit. */
        const int16_t *constants = p->constants[which] + b->first_channel + c;
        uint16x8_t c_even = vreinterpretq_u16_s16(vld1q_s16(constants));
        uint16x8_t c_odd = vreinterpretq_u16_s16(vld1q_s16(constants + 8));
        int16x8_t even = vreinterpretq_s16_u16(
            vaddq_u16(vshlq_n_u16(sums[4 * v], 2), vaddq_u16(c_even, parity)));
        int16x8_t odd = vreinterpretq_s16_u16(
            vaddq_u16(vshlq_n_u16(sums[4 * v + 1], 2), vaddq_u16(c_odd, parity)));
        if (output != BI_SIGNS) {
            write_floats(b, p, which, c, even, odd, output == BI_ANY_FLOATS);
            continue;
        }
        /* The even bytes of a vector hold its channels 0 to 7, the odd ones 8 to 15. */
        uint16x8_t low = vcltq_s16(even, vld1q_s16(b->thresholds + c));
        uint16x8_t high = vcltq_s16(odd, vld1q_s16(b->thresholds + c + 8));
        masks[v] = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    }
    if (output == BI_SIGNS)
        write_signs(b, p, which, vectors, masks);
}

/* Finish a part of K for pair number `index` of `pairs` that were computed together: keep its sums,
 * or add those kept before and write the outputs. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
finish_part(const block *b, const bi_pair *p, const bi_sums_neon *sums, int pairs, int index,
            int first, int last, uint16x8_t *kept, int vectors, int output)
{
    BI_UNROLL for (int v = 0; v < vectors; v++)
        widen(sums->f[v * pairs + index], sums->h[v * pairs + index], first, kept + 4 * v);
    if (!last)
        return;
    for (int which = 0; which < 2 - p->is_alone; which++)
        write_outputs(b, p, which, vectors, kept + 2 * which, output);
}

static inline int may_join(const bi_pair *one, const bi_pair *other)
{
    return one->ky_first == other->ky_first && one->ky_end == other->ky_end &&
           one->is_vertical == other->is_vertical;
}

/* The two loops that take the time are compiled once for each shape, and pass sums in memory: one
 * addition of a part does up to 126 times as many look-ups as it stores vectors. */
typedef void add_part_function(const block *b, const bi_part *p, const bi_pair *one,
                               const bi_pair *other, bi_sums_neon *sums);
typedef void finish_part_function(const block *b, const bi_pair *p, const bi_sums_neon *sums,
                                  int pairs, int index, int first, int last, uint16x8_t *kept);

#define DEFINE_ADD_PART(vectors, pairs)                                                        \
    BI_TARGET_neon static void add_part_##vectors##x##pairs(                                   \
        const block *b, const bi_part *p, const bi_pair *one, const bi_pair *other,            \
        bi_sums_neon *sums)                                                                    \
    {                                                                                          \
        bi_sums_neon s;                                                                        \
        add_part(b, p, one, other, vectors, pairs, &s);                                        \
        BI_UNROLL for (int i = 0; i < vectors * pairs; i++)                                    \
        {                                                                                      \
            sums->f[i] = s.f[i];                                                               \
            sums->h[i] = s.h[i];                                                               \
        }                                                                                      \
    }
#define DEFINE_FINISH_PART(vectors, output)                                                    \
    BI_TARGET_neon static void finish_part_##vectors##_##output(                               \
        const block *b, const bi_pair *p, const bi_sums_neon *sums, int pairs, int index,      \
        int first, int last, uint16x8_t *kept)                                                 \
    {                                                                                          \
        finish_part(b, p, sums, pairs, index, first, last, kept, vectors, output);             \
    }
#define DEFINE_PARTS(vectors)                    \
    DEFINE_ADD_PART(vectors, 1)                  \
    DEFINE_ADD_PART(vectors, 2)                  \
    DEFINE_FINISH_PART(vectors, BI_PLAIN_FLOATS) \
    DEFINE_FINISH_PART(vectors, BI_ANY_FLOATS)   \
    DEFINE_FINISH_PART(vectors, BI_SIGNS)
DEFINE_PARTS(1)
DEFINE_PARTS(2)
DEFINE_PARTS(3)
DEFINE_PARTS(4)

static add_part_function *const add_parts[4][2] = {
    {add_part_1x1, add_part_1x2},
    {add_part_2x1, add_part_2x2},
    {add_part_3x1, add_part_3x2},
    {add_part_4x1, add_part_4x2},
};

static finish_part_function *const finish_parts[4][3] = {
#define FINISH_PARTS(vectors)                                                          \
    {finish_part_##vectors##_BI_PLAIN_FLOATS, finish_part_##vectors##_BI_ANY_FLOATS,   \
     finish_part_##vectors##_BI_SIGNS}
    FINISH_PARTS(1), FINISH_PARTS(2), FINISH_PARTS(3), FINISH_PARTS(4)};

BI_TARGET_neon static void run_tile(const block *b, const bi_pair *pairs, size_t count,
                                    int32_t vectors, bi_lookup_output output)
{
    finish_part_function *finish = finish_parts[vectors - 1][output];
    uint16x8_t kept[BI_LOOKUP_TILE][16];
    bi_part p = {0};
    int more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM_NEON, &p);
    for (int first = 1; more; first = 0) {
        bi_part now = p;
        more = bi_lookup_next_part(b->shape, b->step, BI_LONGEST_SUM_NEON, &p);
        for (size_t i = 0, together; i < count; i += together) {
            bi_sums_neon sums;
            together = i + 1 < count && may_join(&pairs[i], &pairs[i + 1]) ? 2 : 1;
            add_parts[vectors - 1][together - 1](b, &now, &pairs[i], &pairs[i + together - 1],
                                                 &sums);
            for (size_t k = 0; k < together; k++)
                finish(b, &pairs[i + k], &sums, (int)together, (int)k, first, !more, kept[i + k]);
        }
    }
}

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
        .channels = shape->outputs,
        .row_step = {(size_t)(s->dilation_h * shape->plane_w) * (size_t)shape->entries,
                     (size_t)(s->dilation_h * shape->reach_w) * (size_t)shape->entries},
    };
    const uint64_t *flips = (const uint64_t *)(base + shape->flips) + group * shape->vectors;
    size_t target_bytes = ((size_t)s->out_c + LANES - 1) / LANES * (LANES / 8);
    bi_lookup_output output = bi_lookup_output_of(s);
    for (int32_t left = shape->vectors, vectors; left > 0; left -= vectors) {
        vectors = bi_lookup_block(left);
        b.flips = 0;
        for (int32_t v = 0; v < vectors; v++)
            b.flips |= *flips++ << v * LANES;
        if (vectors == left && group == s->groups - 1)
            b.stray_bytes = (8 - target_bytes % 8) % 8;
        run_tile(&b, pairs, count, vectors, output);
        b.first_channel += vectors * LANES;
        b.channels -= vectors * LANES;
        b.weights += (size_t)vectors * LANES * k;
        b.alpha += vectors * LANES;
        b.bias += vectors * LANES;
        b.slope += vectors * LANES;
        b.thresholds += vectors * LANES;
    }
}

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    const bi_lookup *shape = s->weight;
    if (shape->entries == 0) {
        bi_step other = *s;
        other.weight = shape + 1;
        bi_bconv2d_portable.run(&other, at, begin, end);
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

const bi_kernel bi_bconv2d_neon = {
    .weight_bytes = weight_bytes,
    .pack_weight = pack_weight,
    .scratch_bytes = scratch_bytes,
    .stage = stage,
    .run = run,
};
#endif
