/* pack_signs_neon.c -- 16 signs at a time: compare (not the sign bit: -0.0 is not negative), narrow
 * the masks to bytes, and those of a whole word to bits. */
#if defined(__aarch64__)
#include "../neon.h"
#include "pack_signs.h"

/* Four sums, so that an addition need not wait for the last, and one of what is left of a word. */
typedef struct {
    float32x4_t sums[4];
    float rest;
} bi_zeros_neon;

BI_TARGET_neon static inline float sum_neon(const bi_zeros_neon *zeros)
{
    const float32x4_t *sums = zeros->sums;
    return zeros->rest +
           vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])));
}

/* 0xff where element i is below the threshold, for sixteen elements. */
BI_TARGET_neon static inline __attribute__((always_inline)) uint8x16_t
compare_sixteen(const void *source, const float *threshold, int32_t i, bi_pack_type type,
                bi_zeros_neon *zeros)
{
    float32x4_t x[4];
    if (type == BI_FROM_FLOAT) {
        const float *from = (const float *)source + i;
        BI_UNROLL for (int k = 0; k < 4; k++)
            x[k] = vld1q_f32(from + 4 * k);
    } else if (type == BI_FROM_U8) {
        uint8x16_t bytes = vld1q_u8((const uint8_t *)source + i);
        uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
        x[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low)));
        x[1] = vcvtq_f32_u32(vmovl_high_u16(low));
        x[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high)));
        x[3] = vcvtq_f32_u32(vmovl_high_u16(high));
    } else {
        int8x16_t bytes = vld1q_s8((const int8_t *)source + i);
        int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
        x[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
        x[1] = vcvtq_f32_s32(vmovl_high_s16(low));
        x[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
        x[3] = vcvtq_f32_s32(vmovl_high_s16(high));
    }
    uint16x8_t below[4];
    BI_UNROLL for (int k = 0; k < 4; k++) {
        float32x4_t t = threshold != NULL ? vld1q_f32(threshold + i + 4 * k) : vdupq_n_f32(0);
        below[k] = vreinterpretq_u16_u32(vcltq_f32(x[k], t));
        if (zeros != NULL)
            zeros->sums[k] = vfmaq_f32(zeros->sums[k], x[k], vdupq_n_f32(0));
    }
    return vuzp1q_u8(vreinterpretq_u8_u16(vuzp1q_u16(below[0], below[1])),
                     vreinterpretq_u8_u16(vuzp1q_u16(below[2], below[3])));
}

BI_TARGET_neon static inline __attribute__((always_inline)) uint64_t
pack_word_neon(const void *source, const float *threshold, int32_t count, bi_pack_type type,
               bi_zeros_neon *zeros)
{
    if (count == 64) {
        uint8x16_t below[4];
        BI_UNROLL for (int k = 0; k < 4; k++)
            below[k] = compare_sixteen(source, threshold, 16 * k, type, zeros);
        return bi_mask_bits_neon(below);
    }
    if (count < 16)
        return bi_pack_word(source, threshold, count, type, zeros != NULL ? &zeros->rest : NULL);
    uint64_t word = 0;
    for (int32_t done = 0; done < count; done += 16) {
        int32_t i = done + 16 <= count ? done : count - 16;    /* the last sixteen may overlap */
        uint8x16_t below[4] = {compare_sixteen(source, threshold, i, type, zeros), vdupq_n_u8(0),
                               vdupq_n_u8(0), vdupq_n_u8(0)};
        word |= bi_mask_bits_neon(below) << i;
    }
    return word;
}

BI_DEFINE_PACK_SIGNS(neon, pack_word_neon, sum_neon)

const bi_kernel bi_pack_signs_compare_neon = {.block = 16, .looks = bi_pack_signs_looks, .run = pack_signs_neon};
#endif
