/* lookup_neon.h -- the inner loop of the table kernel: nibble look-ups, two pixels to a byte.
 *
 * As lookup_avx2.h, 16 channels to a vector.  Shifts act on bytes here, and one instruction shifts
 * and adds, so at the end of a chain of seven look-ups
 *
 *     F += t                      bytes, mod 256:  A + 16 B
 *     H += t >> 4                 bytes:  B
 *
 * and A = F - 16 H, B = H, exact for up to 126 entries (126 * 2 = 252 < 256).  That makes 15
 * instructions of arithmetic for seven look-ups.
 *
 * Four vectors of two pairs need 24 of the 32 registers for t, F and H; the weights are loaded once
 * for both pairs.  The instructions' order is the compiler's, but for entries: empty assembly keeps it
 * from looking up several at once, for which it would put sums on the stack.
 */
#ifndef BITINFER_LOOKUP_NEON_H
#define BITINFER_LOOKUP_NEON_H

#include <stddef.h>

#include "../neon.h"

enum { BI_CHAIN_NEON = 7, BI_LONGEST_SUM_NEON = 126 };

/* Those of vector v of pair p are number v * pairs + p. */
typedef struct {
    uint8x16_t f[8], h[8];
} bi_sums_neon;

/* Look up entry i for every vector and pair: into t, or added to t. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
bi_look_up_neon(const uint16_t *index, const uint16_t *other, const uint8_t *weight,
                const uint8_t *table, size_t i, int vectors, int pairs, int add, uint8x16_t *t)
{
    uint8x16_t tables[2];
    tables[0] = vld1q_u8(table + index[i]);
    if (pairs == 2)
        tables[1] = vld1q_u8(table + other[i]);
    BI_UNROLL for (int v = 0; v < vectors; v++) {
        uint8x16_t w = vld1q_u8(weight + (i * (size_t)vectors + (size_t)v) * 16);
        BI_UNROLL for (int p = 0; p < pairs; p++) {
            uint8x16_t look = vqtbl1q_u8(tables[p], w);
            t[v * pairs + p] = add ? vaddq_u8(t[v * pairs + p], look) : look;
        }
    }
    BI_UNROLL for (int v = 0; v < vectors * pairs; v++)
        __asm__ volatile("" : "+w"(t[v]));
}

BI_TARGET_neon static inline __attribute__((always_inline)) void
bi_end_chain_neon(const uint8x16_t *t, int vectors, int pairs, bi_sums_neon *s)
{
    BI_UNROLL for (int v = 0; v < vectors * pairs; v++) {
        s->f[v] = vaddq_u8(s->f[v], t[v]);
        s->h[v] = vsraq_n_u8(s->h[v], t[v], 4);
    }
}

/* All chains of seven, then the chain of what is left; for one pair or two, up to four vectors. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
bi_add_entries_neon(const uint16_t *index, const uint16_t *other, const uint8_t *weight,
                    size_t entries, const uint8_t *table, int vectors, int pairs, bi_sums_neon *s)
{
    uint8x16_t t[8];
    for (; entries >= BI_CHAIN_NEON; entries -= BI_CHAIN_NEON) {
        bi_look_up_neon(index, other, weight, table, 0, vectors, pairs, 0, t);
        BI_UNROLL for (size_t i = 1; i < BI_CHAIN_NEON; i++)
            bi_look_up_neon(index, other, weight, table, i, vectors, pairs, 1, t);
        bi_end_chain_neon(t, vectors, pairs, s);
        index += BI_CHAIN_NEON;
        other += BI_CHAIN_NEON;
        weight += BI_CHAIN_NEON * vectors * 16;
    }
    if (entries == 0)
        return;
    bi_look_up_neon(index, other, weight, table, 0, vectors, pairs, 0, t);
    for (size_t i = 1; i < entries; i++)
        bi_look_up_neon(index, other, weight, table, i, vectors, pairs, 1, t);
    bi_end_chain_neon(t, vectors, pairs, s);
}

/* The sums of both pixels, as bytes 0..252, from F and H. */
BI_TARGET_neon static inline __attribute__((always_inline)) void
bi_separate_neon(uint8x16_t f, uint8x16_t h, uint8x16_t *a, uint8x16_t *b)
{
    *a = vsubq_u8(f, vshlq_n_u8(h, 4));
    *b = h;
}

#endif
