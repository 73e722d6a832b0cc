/* neon.h -- what several NEON kernels need. */
#ifndef BITINFER_NEON_H
#define BITINFER_NEON_H

#include <arm_neon.h>
#include <stdint.h>

#include "isa.h"
#include "unroll.h"

/* The top bits of 64 bytes that are each 0x00 or 0xff, byte i of m[0] first: bit 0 of the result.
 * NEON has no movemask; each byte keeps the one bit that it stands for, and adding neighbours three
 * times joins eight bytes into one. */
BI_TARGET_neon static inline uint64_t bi_mask_bits_neon(const uint8x16_t m[4])
{
    const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(UINT64_C(0x8040201008040201)));
    uint8x16_t low = vpaddq_u8(vandq_u8(m[0], bits), vandq_u8(m[1], bits));
    uint8x16_t high = vpaddq_u8(vandq_u8(m[2], bits), vandq_u8(m[3], bits));
    uint8x16_t pairs = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)), 0);
}

#endif
