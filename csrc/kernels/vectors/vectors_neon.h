/* vectors_neon.h -- the vocabulary that vectors_avx2.h describes, for NEON. */
#ifndef BITINFER_VECTORS_NEON_H
#define BITINFER_VECTORS_NEON_H

#include <string.h>

#include "../neon.h"

#define BI_HERE BI_TARGET_neon static inline __attribute__((always_inline))

typedef float32x4_t bi_v_floats_neon;
typedef uint16x8_t bi_v_words_neon; /* unsigned, since in C what is signed must not wrap */
typedef uint16_t bi_v_signs_neon;
enum { bi_v_lanes_neon = 4, bi_v_together_neon = 4, bi_v_has_masks_neon = 0 };

BI_HERE float32x4_t bi_v_load_neon(const float *from) { return vld1q_f32(from); }
BI_HERE void bi_v_store_neon(float *to, float32x4_t y) { vst1q_f32(to, y); }
BI_HERE float32x4_t bi_v_set_neon(float x) { return vdupq_n_f32(x); }
BI_HERE float32x4_t bi_v_add_neon(float32x4_t x, float32x4_t y) { return vaddq_f32(x, y); }
BI_HERE float32x4_t bi_v_mul_neon(float32x4_t x, float32x4_t y) { return vmulq_f32(x, y); }

/* Compared: vmaxq and vminq would return NaN for NaN. */
BI_HERE float32x4_t bi_v_greater_neon(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}
BI_HERE float32x4_t bi_v_less_neon(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(x, y), x, y);
}

BI_HERE float32x4_t bi_v_load_some_neon(const float *from, int32_t count)
{
    float some[4] = {0};
    if (count >= 4)
        return vld1q_f32(from);
    for (int32_t i = 0; i < count; i++)
        some[i] = from[i];
    return vld1q_f32(some);
}

BI_HERE void bi_v_store_some_neon(float *to, float32x4_t y, int32_t count)
{
    float all[4];
    if (count >= 4) {
        vst1q_f32(to, y);
        return;
    }
    vst1q_f32(all, y);
    for (int32_t i = 0; i < count; i++)
        to[i] = all[i];
}

BI_HERE float32x4_t bi_v_bend_neon(float32x4_t y, float32x4_t slope)
{
    return vbslq_f32(vcltq_f32(y, vdupq_n_f32(0)), vmulq_f32(y, slope), y);
}

BI_HERE uint32_t bi_v_below_neon(float32x4_t y, float32x4_t limit)
{
    const uint32_t bits[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcltq_f32(y, limit), vld1q_u32(bits)));
}

BI_HERE uint16x8_t bi_v_load_words_neon(const int16_t *from)
{
    return vreinterpretq_u16_s16(vld1q_s16(from));
}
BI_HERE uint16x8_t bi_v_set_words_neon(int16_t x) { return vdupq_n_u16((uint16_t)x); }
BI_HERE uint16x8_t bi_v_add_words_neon(uint16x8_t x, uint16x8_t y) { return vaddq_u16(x, y); }
BI_HERE uint16x8_t bi_v_times_four_neon(uint16x8_t x) { return vshlq_n_u16(x, 2); }
BI_HERE uint16x8_t bi_v_low_bytes_neon(uint16x8_t x) { return vandq_u16(x, vdupq_n_u16(0x00ff)); }
BI_HERE uint16x8_t bi_v_high_bytes_neon(uint16x8_t x) { return vshrq_n_u16(x, 8); }

/* The even bytes of a vector hold its channels 0 to 7, the odd ones 8 to 15. */
BI_HERE void bi_v_to_floats_neon(uint16x8_t even, uint16x8_t odd, float32x4_t *y)
{
    int16x8_t low = vreinterpretq_s16_u16(even), high = vreinterpretq_s16_u16(odd);
    y[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    y[1] = vcvtq_f32_s32(vmovl_high_s16(low));
    y[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    y[3] = vcvtq_f32_s32(vmovl_high_s16(high));
}

/* NEON has no movemask; each byte keeps the one bit that it stands for, and the eight of a half are
 * added up. */
BI_HERE uint32_t bi_v_words_below_neon(uint16x8_t even, uint16x8_t odd, const int16_t *thresholds)
{
    const uint8x8_t bits = vcreate_u8(UINT64_C(0x8040201008040201));
    uint8x8_t low = vmovn_u16(vcltq_s16(vreinterpretq_s16_u16(even), vld1q_s16(thresholds)));
    uint8x8_t high = vmovn_u16(vcltq_s16(vreinterpretq_s16_u16(odd), vld1q_s16(thresholds + 8)));
    return vaddv_u8(vand_u8(low, bits)) | (uint32_t)vaddv_u8(vand_u8(high, bits)) << 8;
}

#undef BI_HERE
#endif
