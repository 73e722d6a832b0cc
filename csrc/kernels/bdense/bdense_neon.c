/* bdense_neon.c -- four outputs at a time, so that the source is loaded once for all of them.
 *
 * A byte gains at most 8 per step of two words, so the bytes are emptied into 32-bit counts every
 * 31 steps.
 */
#if defined(__aarch64__)
#include "../neon.h"
#include "bdense.h"

enum { ROWS = 4, STEPS_PER_BYTE_COUNT = 31 };

/* Count the signs that differ in `rows` (1 or 4, a constant where this is inlined) outputs. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
count_rows(const uint64_t *source, const uint64_t *weight, size_t words, int rows,
           int64_t *differing)
{
    uint32x4_t total[ROWS];
    BI_UNROLL for (int r = 0; r < rows; r++) total[r] = vdupq_n_u32(0);
    size_t steps = words / 2, k = 0;
    while (k < steps) {
        size_t end = steps - k < STEPS_PER_BYTE_COUNT ? steps : k + STEPS_PER_BYTE_COUNT;
        uint8x16_t bytes[ROWS];
        BI_UNROLL for (int r = 0; r < rows; r++) bytes[r] = vdupq_n_u8(0);
        for (; k < end; k++) {
            uint8x16_t a = vreinterpretq_u8_u64(vld1q_u64(source + 2 * k));
            BI_UNROLL for (int r = 0; r < rows; r++) {
                const uint64_t *row = weight + (size_t)r * words;
                uint8x16_t w = vreinterpretq_u8_u64(vld1q_u64(row + 2 * k));
                bytes[r] = vaddq_u8(bytes[r], vcntq_u8(veorq_u8(a, w)));
            }
        }
        BI_UNROLL for (int r = 0; r < rows; r++)
            total[r] = vpadalq_u16(total[r], vpaddlq_u8(bytes[r]));
    }
    BI_UNROLL for (int r = 0; r < rows; r++) {
        differing[r] = vaddvq_u32(total[r]);
        if (words % 2 != 0) {
            uint64_t last = source[words - 1] ^ weight[(size_t)(r + 1) * words - 1];
            differing[r] += __builtin_popcountll(last);
        }
    }
}

BI_TARGET_neon static void bdense_neon_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t words = bi_words(s->in_c);
    const uint64_t *source = at->source;
    int32_t last = end * BI_BDENSE_BLOCK < s->out_c ? end * BI_BDENSE_BLOCK : s->out_c;
    for (int32_t o = begin * BI_BDENSE_BLOCK; o < last; o += 16) {
        const uint64_t *weight = (const uint64_t *)s->weight + (size_t)o * words;
        int32_t count = last - o < 16 ? last - o : 16, i = 0;
        int64_t differing[16];
        for (; i + ROWS <= count; i += ROWS, weight += ROWS * words)
            count_rows(source, weight, words, ROWS, differing + i);
        for (; i < count; i++, weight += words)
            count_rows(source, weight, words, 1, differing + i);
        bi_bdense_finish(s, at, o, count, differing);
    }
}

const bi_kernel bi_bdense_words_neon = {.block = 16, .run = bdense_neon_run};
#endif
