/* bconv2d_neon.c -- binary convolution by table look-up (lookup.h has the arithmetic,
 * lookup_pairs.inc the layout, lookup_neon.h the inner loop), 16 channels and two pixels to a
 * vector.
 *
 * Loops: tile of pairs -> block of 1 to 4 vectors -> part of K -> one pair, or two that compute the
 * same tap rows.  The speed of this kernel has not been measured.
 */
#if defined(__aarch64__)
#include "lookup.h"
#include "lookup_neon.h"

#define BI_TARGET BI_TARGET_neon
#define BI_NAME(operation) bi_##operation##_lookup4_neon
#define BI_OWN(name) name##_lookup4_neon
#define NOT_WITH 0

enum { LANES = 16 };

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

/* Add a part of K for one pair, or for two that compute the same tap rows. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
add_part(const bi_block *b, const bi_part *p, const bi_pair *one, const bi_pair *other, int vectors,
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
        bi_add_entries_neon(index, index_2, weight, entries, bi_lookup_nibbles[0], vectors, pairs,
                            sums);
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
load_scale(const bi_block *b, bi_scale which, int32_t c)
{
    return vld1q_f32(b->scales + (size_t)which * b->scale_step + c);
}

BI_TARGET_neon static inline __attribute__((always_inline)) float32x4_t
activate(const bi_block *b, float32x4_t y, int32_t c)
{
    const float32x4_t zero = vdupq_n_f32(0);    /* compared: vmaxq would return NaN for NaN */
    bi_activation activation = (bi_activation)b->step->activation;
    switch (activation) {
    case BI_ACTIVATION_NONE: return y;
    case BI_ACTIVATION_RELU: return vbslq_f32(vcgtq_f32(y, zero), y, zero);
    case BI_ACTIVATION_PRELU:
    case BI_ACTIVATION_RPRELU: {
        if (activation == BI_ACTIVATION_RPRELU)
            y = vaddq_f32(y, load_scale(b, BI_SCALE_SHIFT_IN, c));
        float32x4_t bent = vmulq_f32(y, load_scale(b, BI_SCALE_SLOPE, c));
        y = vbslq_f32(vcltq_f32(y, zero), bent, y);
        if (activation == BI_ACTIVATION_RPRELU)
            y = vaddq_f32(y, load_scale(b, BI_SCALE_SHIFT_OUT, c));
        return y;
    }
    case BI_ACTIVATION_CLIP: {
        float32x4_t low = vdupq_n_f32(b->step->low), high = vdupq_n_f32(b->step->high);
        y = vbslq_f32(vcgtq_f32(y, low), y, low);
        return vbslq_f32(vcltq_f32(y, high), y, high);
    }
    case BI_ACTIVATION_SIGMOID: {
        float values[4];
        vst1q_f32(values, y);
        bi_lookup_sigmoid(values, 4);
        return vld1q_f32(values);
    }
    }
    return vdupq_n_f32(NAN);
}

/* Write 16 channels of one pixel, from channel c of the block on, as floats, if they are wanted;
 * return 0xff for those below their sign thresholds. */
BI_TARGET_neon static inline __attribute__((always_inline)) uint8x16_t
write_floats(const bi_block *b, size_t pixel, int32_t c, int16x8_t even, int16x8_t odd, int any)
{
    const bi_step *s = b->step;
    int32_t left = b->channels - c;
    size_t first = pixel * b->floats_pixel + (size_t)(b->first_channel + c);
    const float *residual = any && b->residual != NULL ? b->residual + first : NULL;
    float rest[LANES] = {0};    /* stands in for what has fewer than 16 channels */
    if (residual != NULL && left < LANES) {
        memcpy(rest, residual, (size_t)left * sizeof *rest);
        residual = rest;
    }
    float32x4_t y[4] = {
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(even))), vcvtq_f32_s32(vmovl_high_s16(even)),
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(odd))), vcvtq_f32_s32(vmovl_high_s16(odd))};
    uint16x8_t below[4];
    BI_UNROLL for (int i = 0; i < 4; i++) {
        int32_t k = c + 4 * i;
        if (any && s->floor != NULL) {
            float32x4_t floor = load_scale(b, BI_SCALE_FLOOR, k);
            y[i] = vbslq_f32(vcgtq_f32(y[i], floor), y[i], floor);
        }
        y[i] = vmulq_f32(y[i], load_scale(b, BI_SCALE_ALPHA, k));
        if (any && b->beta != NULL)
            y[i] = vmulq_n_f32(y[i], b->beta[pixel * b->groups]);
        y[i] = vaddq_f32(y[i], load_scale(b, BI_SCALE_BIAS, k));
        if (residual != NULL)
            y[i] = vaddq_f32(y[i], vld1q_f32(residual + 4 * i));
        if (any && s->activation != BI_ACTIVATION_NONE)
            y[i] = activate(b, y[i], k);
        below[i] = vreinterpretq_u16_u32(
            any ? vcltq_f32(y[i], load_scale(b, BI_SCALE_SIGN_THRESHOLD, k)) : vdupq_n_u32(0));
    }
    if (!any || b->floats != NULL) {
        float *target = b->floats + first, *to = left < LANES ? rest : target;
        BI_UNROLL for (int i = 0; i < 4; i++) vst1q_f32(to + 4 * i, y[i]);
        if (left < LANES)
            memcpy(target, rest, (size_t)left * sizeof *rest);
    }
    return vuzp1q_u8(vreinterpretq_u8_u16(vuzp1q_u16(below[0], below[1])),
                     vreinterpretq_u8_u16(vuzp1q_u16(below[2], below[3])));
}

/* Write a block of one pixel as signs; below[v] has 0xff for channels under their thresholds. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
write_signs(const bi_block *b, size_t pixel, int vectors, const uint8x16_t *below)
{
    uint64_t flips = 0;
    BI_UNROLL for (int v = 0; v < vectors; v++) flips |= b->flips[v] << (v * LANES);
    uint64_t signs = bi_mask_bits_neon(below) ^ flips;
    if (b->channels < 64)
        signs &= (UINT64_C(1) << b->channels) - 1;
    char *target = b->signs + pixel * b->signs_pixel + b->first_channel / 8;
    size_t bytes = (size_t)vectors * (LANES / 8);
    memcpy(target, &signs, bytes);
    if (b->channels > vectors * LANES || !b->is_last_group)
        return;
    /* The last word is whole, if only a part of it has outputs. */
    size_t written = (b->floats_pixel + LANES - 1) / LANES * (LANES / 8);
    memset(target + bytes, 0, (8 - written % 8) % 8);
}

/* Finish one pixel of a block from its sums of f: sums[4 v] of the even channels of vector v and
 * sums[4 v + 1] of the odd ones. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
write_outputs(const bi_block *b, const bi_pair *p, int which, int vectors,
              const uint16x8_t *sums, int output)
{
    size_t pixel = bi_pair_pixel(b, p, which);
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
            masks[v] = write_floats(b, pixel, c, even, odd, output == BI_ANY_OUTPUT);
            continue;
        }
        /* The even bytes of a vector hold its channels 0 to 7, the odd ones 8 to 15. */
        uint16x8_t low = vcltq_s16(even, vld1q_s16(b->thresholds + c));
        uint16x8_t high = vcltq_s16(odd, vld1q_s16(b->thresholds + c + 8));
        masks[v] = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
    }
    if (output != BI_PLAIN_FLOATS && b->signs != NULL)
        write_signs(b, pixel, vectors, masks);
}

/* Finish a part of K for pair number `index` of `pairs` that were computed together: keep its sums,
 * or add those kept before and write the outputs. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
finish_part(const bi_block *b, const bi_pair *p, const bi_sums_neon *sums, int pairs, int index,
            int first, int last, uint16x8_t *kept, int vectors, int output)
{
    BI_UNROLL for (int v = 0; v < vectors; v++)
        widen(sums->f[v * pairs + index], sums->h[v * pairs + index], first, kept + 4 * v);
    if (!last)
        return;
    for (int which = 0; which < 2 - p->is_alone; which++)
        write_outputs(b, p, which, vectors, kept + 2 * which, output);
}

/* The two loops that take the time are compiled once for each shape, and pass sums in memory: one
 * addition of a part does up to 126 times as many look-ups as it stores vectors. */
typedef void add_part_function(const bi_block *b, const bi_part *p, const bi_pair *one,
                               const bi_pair *other, bi_sums_neon *sums);
typedef void finish_part_function(const bi_block *b, const bi_pair *p, const bi_sums_neon *sums,
                                  int pairs, int index, int first, int last, uint16x8_t *kept);

#define DEFINE_ADD_PART(vectors, pairs)                                                        \
    BI_TARGET_neon static void add_part_##vectors##x##pairs(                                   \
        const bi_block *b, const bi_part *p, const bi_pair *one, const bi_pair *other,            \
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
        const bi_block *b, const bi_pair *p, const bi_sums_neon *sums, int pairs, int index,      \
        int first, int last, uint16x8_t *kept)                                                 \
    {                                                                                          \
        finish_part(b, p, sums, pairs, index, first, last, kept, vectors, output);             \
    }
#define DEFINE_PARTS(vectors)                    \
    DEFINE_ADD_PART(vectors, 1)                  \
    DEFINE_ADD_PART(vectors, 2)                  \
    DEFINE_FINISH_PART(vectors, BI_PLAIN_FLOATS) \
    DEFINE_FINISH_PART(vectors, BI_ANY_OUTPUT)   \
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

static finish_part_function *const finish_parts[4][BI_OUTPUTS] = {
#define FINISH_PARTS(vectors)                                                          \
    {finish_part_##vectors##_BI_PLAIN_FLOATS, finish_part_##vectors##_BI_ANY_OUTPUT,   \
     finish_part_##vectors##_BI_ANY_OUTPUT, finish_part_##vectors##_BI_SIGNS}
    FINISH_PARTS(1), FINISH_PARTS(2), FINISH_PARTS(3), FINISH_PARTS(4)};

BI_TARGET_neon static void run_block(const bi_block *b, const bi_pair *pairs, size_t count,
                                     int32_t vectors, bi_output output)
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
            together = i + 1 < count && bi_pairs_lie_alike(&pairs[i], &pairs[i + 1]) ? 2 : 1;
            add_parts[vectors - 1][together - 1](b, &now, &pairs[i], &pairs[i + together - 1],
                                                 &sums);
            for (size_t k = 0; k < together; k++)
                finish(b, &pairs[i + k], &sums, (int)together, (int)k, first, !more, kept[i + k]);
        }
    }
}

static int BI_OWN(suits)(const bi_step *s)
{
    (void)s;
    return 1;
}

#include "lookup_pairs.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef NOT_WITH
#endif
