/* planes_neon.h -- the vectors of planes_body.inc, for NEON. */
#ifndef BITINFER_PLANES_NEON_H
#define BITINFER_PLANES_NEON_H

#include "../neon.h"
#include "pixels.h"

#define PIXELS_LAID 16
#define PIXELS_TYPE uint8x16_t
#define PIXELS_INLINE BI_TARGET_neon static inline __attribute__((always_inline))

PIXELS_INLINE uint8x16_t load_pixels(const void *from) { return vld1q_u8((const uint8_t *)from); }
PIXELS_INLINE void store_pixels(void *to, uint8x16_t x) { vst1q_u8((uint8_t *)to, x); }
PIXELS_INLINE uint8x16_t no_pixels(void) { return vdupq_n_u8(0); }
PIXELS_INLINE uint8x16_t add_bytes(uint8x16_t x, uint8x16_t y) { return vaddq_u8(x, y); }

PIXELS_INLINE void interleave_bytes(const uint8x16_t *from, uint8x16_t *to, int count)
{
    BI_UNROLL for (int i = 0; i < count / 2; i++) {
        to[2 * i] = vzip1q_u8(from[i], from[i + count / 2]);
        to[2 * i + 1] = vzip2q_u8(from[i], from[i + count / 2]);
    }
}

PIXELS_INLINE uint8x16_t load_words(const uint64_t *pixels)
{
    return vreinterpretq_u8_u64(vld1q_u64(pixels));
}

PIXELS_INLINE uint8x16_t low_nibbles(uint8x16_t x) { return vandq_u8(x, vdupq_n_u8(15)); }
PIXELS_INLINE uint8x16_t high_nibbles(uint8x16_t x) { return vshrq_n_u8(x, 4); }

PIXELS_INLINE uint8x16_t parities(uint8x16_t nibbles)
{
    static const uint8_t parity[16] = {0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0};
    return vqtbl1q_u8(vld1q_u8(parity), nibbles);
}

PIXELS_INLINE uint8x16_t constants_of(const uint16_t *columns, int32_t class_size, int32_t of_row)
{
    uint32x4_t column = vmovl_u16(vld1_u16(columns));
    return vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32((uint32_t)of_row), column, (uint32_t)class_size));
}

PIXELS_INLINE void note_odd(uint8x16_t counts, int is_floats, int32_t outputs, int32_t *constants, int16_t *odd)
{
    if (is_floats) {
        store_pixels(odd, vreinterpretq_u8_u16(vshll_n_u8(vget_low_u8(counts), 1)));
        store_pixels(odd + 8, vreinterpretq_u8_u16(vshll_n_u8(vget_high_u8(counts), 1)));
        return;
    }
    uint8x16_t half = vshrq_n_u8(counts, 1), is_odd = vandq_u8(counts, vdupq_n_u8(1));
    uint16x8_t words[2] = {vmovl_u8(vget_low_u8(is_odd)), vmovl_high_u8(is_odd)};
    store_pixels(odd, vreinterpretq_u8_u16(vmovl_u8(vget_low_u8(half))));
    store_pixels(odd + 8, vreinterpretq_u8_u16(vmovl_high_u8(half)));
    BI_UNROLL for (int i = 0; i < 4; i++) {
        uint16x4_t four = i % 2 == 0 ? vget_low_u16(words[i / 2]) : vget_high_u16(words[i / 2]);
        uint32x4_t here = vreinterpretq_u32_u8(load_pixels(constants + 4 * i));
        here = vmlal_n_u16(here, four, (uint16_t)outputs);
        store_pixels(constants + 4 * i, vreinterpretq_u8_u32(here));
    }
}

#define BI_TARGET BI_TARGET_neon
#include "planes_body.inc"
#undef BI_TARGET

#endif
