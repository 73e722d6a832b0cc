/* bconv2d_pixels4_neon.c -- binary convolution by tables of nibbles with pixels in the lanes (pixels.h has
 * the arithmetic and the layouts, pixels_body.inc the kernel, lookup_neon.h the inner loop): for up to 64
 * outputs.  The speed of this kernel has not been measured.
 */
#if defined(__aarch64__)
#include "../vectors/vectors_neon.h"
#include "lookup.h"
#include "lookup_neon.h"
#include "pixels.h"
#include "planes_neon.h"

#define BI_TARGET BI_TARGET_neon
#define BI_NAME(operation) bi_##operation##_pixels4_neon
#define BI_OWN(name) name##_pixels4_neon
#define V(operation) bi_v_##operation##_neon
#define TAKES bi_pixels_take_neon
#define LANES 16
#define MOST_VECTORS 4
#define LANES_TYPE uint8x16_t

#define load_lanes load_pixels
#define store_lanes store_pixels
#define interleave_lanes BI_OWN(interleave_lanes)
#define store_sixteen BI_OWN(store_sixteen)
#define add_together BI_OWN(add_together)
#define add_pairs BI_OWN(add_pairs)
#define add_eight BI_OWN(add_eight)
#define bits_below BI_OWN(bits_below)
#define floats_of BI_OWN(floats_of)

PIXELS_INLINE void interleave_lanes(const uint8x16_t *from, uint8x16_t *to)
{
    interleave_bytes(from, to, 4);
}

PIXELS_INLINE void store_sixteen(uint8_t *to, uint8x16_t x, int number)
{
    (void)number;
    store_pixels(to, x);
}

/* Add up one pair of outputs, or two, for which entries are loaded once. */
PIXELS_INLINE void add_together(const uint16_t *tables, size_t count, const uint8_t *entries,
                                uint8_t *to, int32_t apart, int vectors, int together)
{
    bi_sums_neon sums;
    BI_UNROLL for (int i = 0; i < vectors * together; i++)
        sums.f[i] = sums.h[i] = vdupq_n_u8(0);
    bi_add_entries_neon(tables, tables + (together - 1) * count, entries, count, bi_lookup_nibbles[0], vectors,
                        together, &sums);
    BI_UNROLL for (int i = 0; i < vectors * together; i++) {
        uint8_t *output = to + i % together * 2 * apart + i / together * LANES;
        uint8x16_t first, second;
        bi_separate_neon(sums.f[i], sums.h[i], &first, &second);
        store_pixels(output, first);
        store_pixels(output + apart, second);
    }
}

PIXELS_INLINE void add_pairs(const uint16_t *tables, size_t count, int32_t pairs, const uint8_t *entries,
                             uint8_t *to, int32_t apart, int vectors)
{
    for (; pairs >= 2; pairs -= 2, tables += 2 * count, to += 4 * apart)
        add_together(tables, count, entries, to, apart, vectors, 2);
    if (pairs > 0)
        add_together(tables, count, entries, to, apart, vectors, 1);
}

/* Add the sums of eight outputs of a pixel, the first or the second ones, to words. */
PIXELS_INLINE uint16x8_t add_eight(uint16x8_t words, const bi_pixels_sixteen *of, int parts, int second)
{
    return parts == 2 ? vpadalq_u8(words, vld1q_u8(of->sums + 16 * second))
                      : vaddw_u8(words, vld1_u8(of->sums + 8 * second));
}

PIXELS_INLINE uint64_t bits_below(const bi_pixels_sixteen *of, int parts, int sixteens)
{
    uint8x16_t bytes[4];
    BI_UNROLL for (int i = 0; i < sixteens; i++) {
        uint16x8_t below[2];
        BI_UNROLL for (int j = 0; j < 2; j++) {
            uint16x8_t sums = add_eight(vdupq_n_u16((uint16_t)-of[i].odd), &of[i], parts, j);
            below[j] = vcltq_s16(vreinterpretq_s16_u16(sums), vld1q_s16(of[i].constants + 8 * j));
        }
        bytes[i] = vuzp1q_u8(vreinterpretq_u8_u16(below[0]), vreinterpretq_u8_u16(below[1]));
    }
    BI_UNROLL for (int i = sixteens; i < 4; i++)
        bytes[i] = bytes[i - 2];
    return bi_mask_bits_neon(bytes);
}

PIXELS_INLINE void floats_of(const bi_pixels_sixteen *of, int parts, float32x4_t *y)
{
    BI_UNROLL for (int j = 0; j < 2; j++) {
        uint16x8_t rest = vreinterpretq_u16_s16(vld1q_s16(of->constants + 8 * j));
        rest = vsubq_u16(rest, vdupq_n_u16((uint16_t)of->odd));
        int16x8_t dot = vreinterpretq_s16_u16(vmlaq_n_u16(rest, add_eight(vdupq_n_u16(0), of, parts, j), 4));
        y[2 * j] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(dot)));
        y[2 * j + 1] = vcvtq_f32_s32(vmovl_high_s16(dot));
    }
}

#include "pixels_body.inc"
#undef add_together
#undef add_eight
#endif
