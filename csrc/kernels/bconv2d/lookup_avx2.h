/* lookup_avx2.h -- the inner loop of the table kernel: nibble look-ups, two pixels to a byte.
 *
 * For every entry k (a nibble of K) and every channel byte c:
 *
 *     t[c] += T_k[w[k][c]]        T_k = table[index[k]], 16 bytes; a byte holds a value 0..2 for
 *                                 pixel A in its low digit and for pixel B in its high digit
 *
 * Seven look-ups fill a digit to at most 14.  Then the chain ends:
 *
 *     F += t                      bytes, mod 256:  A + 16 B
 *     H += t >> 4                 shifted as 16-bit words, added as bytes, nothing masked
 *
 * separate() undoes the mixing exactly, for up to 126 entries (126 * 2 = 252 < 256).
 *
 * This is assembly because the compilers' own scheduling loses up to 40 %: the additions trail
 * their look-ups by two, so that neither waits for the other, and all sixteen registers are in use.
 *
 *     ymm0-7 (chosen by the compiler)   F and H of four vectors
 *     ymm8-11   t        ymm12   T        ymm13-15   look-ups whose addition is still to come
 */
#ifndef BITINFER_LOOKUP_AVX2_H
#define BITINFER_LOOKUP_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "../isa.h"

enum { BI_CHAIN_AVX2 = 7, BI_LONGEST_SUM_AVX2 = 126 };

/* Load T_k of entry i of the chain. */
#define TABLE(i)                                \
    "movzwl 2*" #i "(%[index]), %%eax\n\t"      \
    "vbroadcasti128 (%[table], %%rax), %%ymm12\n\t"
/* Look up vector v of entry i in a row of `vectors` vectors: into t (the first of a chain)... */
#define FIRST(vectors, i, v, t) \
    "vpshufb 32*(" #vectors "*" #i "+" #v ")(%[weight]), %%ymm12, %%ymm" #t "\n\t"
/* ...or into s, to be added to t later. */
#define LOOK(vectors, i, v, s) FIRST(vectors, i, v, s)
#define ADD(s, t) "vpaddb %%ymm" #s ", %%ymm" #t ", %%ymm" #t "\n\t"
#define END(t, f, h)                                    \
    "vpaddb %%ymm" #t ", %[" #f "], %[" #f "]\n\t"      \
    "vpsrlw $4, %%ymm" #t ", %%ymm" #t "\n\t"           \
    "vpaddb %%ymm" #t ", %[" #h "], %[" #h "]\n\t"

/* Four vectors.  The three registers of pending look-ups rotate, so an entry comes in three
 * phases; LEAD is the first after FIRST, with nothing pending. */
#define START4 TABLE(0) FIRST(4, 0, 0, 8) FIRST(4, 0, 1, 9) FIRST(4, 0, 2, 10) FIRST(4, 0, 3, 11)
#define LEAD4(i)                                                            \
    TABLE(i) LOOK(4, i, 0, 13) LOOK(4, i, 1, 14) LOOK(4, i, 2, 15) ADD(13, 8) \
        LOOK(4, i, 3, 13) ADD(14, 9)
#define PHASE4_1(i)                                                          \
    TABLE(i) LOOK(4, i, 0, 14) ADD(15, 10) LOOK(4, i, 1, 15) ADD(13, 11)     \
        LOOK(4, i, 2, 13) ADD(14, 8) LOOK(4, i, 3, 14) ADD(15, 9)
#define PHASE4_2(i)                                                          \
    TABLE(i) LOOK(4, i, 0, 15) ADD(13, 10) LOOK(4, i, 1, 13) ADD(14, 11)     \
        LOOK(4, i, 2, 14) ADD(15, 8) LOOK(4, i, 3, 15) ADD(13, 9)
#define PHASE4_0(i)                                                          \
    TABLE(i) LOOK(4, i, 0, 13) ADD(14, 10) LOOK(4, i, 1, 14) ADD(15, 11)     \
        LOOK(4, i, 2, 15) ADD(13, 8) LOOK(4, i, 3, 13) ADD(14, 9)
#define REST4_0 ADD(15, 10) ADD(13, 11)
#define REST4_1 ADD(13, 10) ADD(14, 11)
#define REST4_2 ADD(14, 10) ADD(15, 11)
#define END4 END(8, f0, h0) END(9, f1, h1) END(10, f2, h2) END(11, f3, h3)

#define CHAIN4_1 START4 END4
#define CHAIN4_2 START4 LEAD4(1) REST4_0 END4
#define CHAIN4_3 START4 LEAD4(1) PHASE4_1(2) REST4_1 END4
#define CHAIN4_4 START4 LEAD4(1) PHASE4_1(2) PHASE4_2(3) REST4_2 END4
#define CHAIN4_5 START4 LEAD4(1) PHASE4_1(2) PHASE4_2(3) PHASE4_0(4) REST4_0 END4
#define CHAIN4_6 START4 LEAD4(1) PHASE4_1(2) PHASE4_2(3) PHASE4_0(4) PHASE4_1(5) REST4_1 END4
#define CHAIN4_7                                                                            \
    START4 LEAD4(1) PHASE4_1(2) PHASE4_2(3) PHASE4_0(4) PHASE4_1(5) PHASE4_2(6) REST4_2 END4

/* Three vectors: as many as there are registers for pending look-ups, so all entries are alike. */
#define START3 TABLE(0) FIRST(3, 0, 0, 8) FIRST(3, 0, 1, 9) FIRST(3, 0, 2, 10)
#define LEAD3(i) TABLE(i) LOOK(3, i, 0, 13) LOOK(3, i, 1, 14) LOOK(3, i, 2, 15) ADD(13, 8)
#define PHASE3(i)                                                            \
    TABLE(i) LOOK(3, i, 0, 13) ADD(14, 9) LOOK(3, i, 1, 14) ADD(15, 10)      \
        LOOK(3, i, 2, 15) ADD(13, 8)
#define REST3 ADD(14, 9) ADD(15, 10)
#define END3 END(8, f0, h0) END(9, f1, h1) END(10, f2, h2)

#define CHAIN3_1 START3 END3
#define CHAIN3_2 START3 LEAD3(1) REST3 END3
#define CHAIN3_3 START3 LEAD3(1) PHASE3(2) REST3 END3
#define CHAIN3_4 START3 LEAD3(1) PHASE3(2) PHASE3(3) REST3 END3
#define CHAIN3_5 START3 LEAD3(1) PHASE3(2) PHASE3(3) PHASE3(4) REST3 END3
#define CHAIN3_6 START3 LEAD3(1) PHASE3(2) PHASE3(3) PHASE3(4) PHASE3(5) REST3 END3
#define CHAIN3_7 START3 LEAD3(1) PHASE3(2) PHASE3(3) PHASE3(4) PHASE3(5) PHASE3(6) REST3 END3

/* Two vectors of one pair. */
#define START2 TABLE(0) FIRST(2, 0, 0, 8) FIRST(2, 0, 1, 9)
#define PHASE2(i) TABLE(i) LOOK(2, i, 0, 13) LOOK(2, i, 1, 14) ADD(13, 8) ADD(14, 9)
#define END2 END(8, f0, h0) END(9, f1, h1)

#define CHAIN2_1 START2 END2
#define CHAIN2_2 START2 PHASE2(1) END2
#define CHAIN2_3 START2 PHASE2(1) PHASE2(2) END2
#define CHAIN2_4 START2 PHASE2(1) PHASE2(2) PHASE2(3) END2
#define CHAIN2_5 START2 PHASE2(1) PHASE2(2) PHASE2(3) PHASE2(4) END2
#define CHAIN2_6 START2 PHASE2(1) PHASE2(2) PHASE2(3) PHASE2(4) PHASE2(5) END2
#define CHAIN2_7 START2 PHASE2(1) PHASE2(2) PHASE2(3) PHASE2(4) PHASE2(5) PHASE2(6) END2

/* One vector. */
#define START1 TABLE(0) FIRST(1, 0, 0, 8)
#define PHASE1(i) TABLE(i) LOOK(1, i, 0, 13) ADD(13, 8)
#define END1 END(8, f0, h0)

#define CHAIN1_1 START1 END1
#define CHAIN1_2 START1 PHASE1(1) END1
#define CHAIN1_3 START1 PHASE1(1) PHASE1(2) END1
#define CHAIN1_4 START1 PHASE1(1) PHASE1(2) PHASE1(3) END1
#define CHAIN1_5 START1 PHASE1(1) PHASE1(2) PHASE1(3) PHASE1(4) END1
#define CHAIN1_6 START1 PHASE1(1) PHASE1(2) PHASE1(3) PHASE1(4) PHASE1(5) END1
#define CHAIN1_7 START1 PHASE1(1) PHASE1(2) PHASE1(3) PHASE1(4) PHASE1(5) PHASE1(6) END1

/* Two vectors of two pairs: the weights are loaded once for both.  f0, f1: first pair; f2, f3:
 * second pair.  ymm12, ymm13: T of the pairs; ymm14: weights; ymm15: a look-up. */
#define TABLES(i)                                   \
    "movzwl 2*" #i "(%[index]), %%eax\n\t"          \
    "vbroadcasti128 (%[table], %%rax), %%ymm12\n\t" \
    "movzwl 2*" #i "(%[other]), %%eax\n\t"          \
    "vbroadcasti128 (%[table], %%rax), %%ymm13\n\t"
#define WEIGHT(i, v) "vmovdqu 32*(2*" #i "+" #v ")(%[weight]), %%ymm14\n\t"
#define SHUFFLE(T, s) "vpshufb %%ymm14, %%ymm" #T ", %%ymm" #s "\n\t"
#define STARTD                                                                      \
    TABLES(0) WEIGHT(0, 0) SHUFFLE(12, 8) SHUFFLE(13, 10) WEIGHT(0, 1) SHUFFLE(12, 9) \
        SHUFFLE(13, 11)
#define PHASED(i)                                                                       \
    TABLES(i) WEIGHT(i, 0) SHUFFLE(12, 15) ADD(15, 8) SHUFFLE(13, 15) ADD(15, 10)       \
        WEIGHT(i, 1) SHUFFLE(12, 15) ADD(15, 9) SHUFFLE(13, 15) ADD(15, 11)
#define ENDD END4

#define CHAIND_1 STARTD ENDD
#define CHAIND_2 STARTD PHASED(1) ENDD
#define CHAIND_3 STARTD PHASED(1) PHASED(2) ENDD
#define CHAIND_4 STARTD PHASED(1) PHASED(2) PHASED(3) ENDD
#define CHAIND_5 STARTD PHASED(1) PHASED(2) PHASED(3) PHASED(4) ENDD
#define CHAIND_6 STARTD PHASED(1) PHASED(2) PHASED(3) PHASED(4) PHASED(5) ENDD
#define CHAIND_7 STARTD PHASED(1) PHASED(2) PHASED(3) PHASED(4) PHASED(5) PHASED(6) ENDD

/* The sums of up to four vectors. */
typedef struct {
    __m256i f[4], h[4];
} bi_sums_avx2;

#define SUMS1 [f0] "+x"(s->f[0]), [h0] "+x"(s->h[0])
#define SUMS2 SUMS1, [f1] "+x"(s->f[1]), [h1] "+x"(s->h[1])
#define SUMS3 SUMS2, [f2] "+x"(s->f[2]), [h2] "+x"(s->h[2])
#define SUMS4 SUMS3, [f3] "+x"(s->f[3]), [h3] "+x"(s->h[3])
#define SCRATCH                                                                              \
    "rax", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory"

#define RUN(chain, ...)                                           \
    __asm__ volatile(chain                                        \
                     : __VA_ARGS__                                \
                     : [index] "r"(index), [other] "r"(other),    \
                       [weight] "r"(weight), [table] "r"(table)   \
                     : SCRATCH)

/* All chains of seven, then the chain of what is left. */
#define DEFINE_ADD_ENTRIES(name, vectors, chain, sums)                                          \
    BI_TARGET_avx2 static inline __attribute__((always_inline)) void name(                      \
        const uint16_t *index, const uint16_t *other, const uint8_t *weight, size_t entries,    \
        const uint8_t *table, bi_sums_avx2 *s)                                                       \
    {                                                                                           \
        size_t chains = entries / BI_CHAIN_AVX2;                                                     \
        if (chains > 0)                                                                         \
            __asm__ volatile(".p2align 5\n"                                                     \
                             "1:\n\t" chain##_7                                                 \
                             "add $14, %[index]\n\t"                                            \
                             "add $14, %[other]\n\t"                                            \
                             "add $(7*32*" #vectors "), %[weight]\n\t"                          \
                             "dec %[chains]\n\t"                                                \
                             "jnz 1b\n\t"                                                       \
                             : sums, [index] "+r"(index), [other] "+r"(other),                  \
                               [weight] "+r"(weight), [chains] "+r"(chains)                     \
                             : [table] "r"(table)                                               \
                             : SCRATCH);                                                        \
        switch (entries % BI_CHAIN_AVX2) {                                                           \
        case 1: RUN(chain##_1, sums); break;                                                    \
        case 2: RUN(chain##_2, sums); break;                                                    \
        case 3: RUN(chain##_3, sums); break;                                                    \
        case 4: RUN(chain##_4, sums); break;                                                    \
        case 5: RUN(chain##_5, sums); break;                                                    \
        case 6: RUN(chain##_6, sums); break;                                                    \
        default: break;                                                                         \
        }                                                                                       \
    }

DEFINE_ADD_ENTRIES(bi_add_entries_4, 4, CHAIN4, SUMS4)
DEFINE_ADD_ENTRIES(bi_add_entries_3, 3, CHAIN3, SUMS3)
DEFINE_ADD_ENTRIES(bi_add_entries_2, 2, CHAIN2, SUMS2)
DEFINE_ADD_ENTRIES(bi_add_entries_1, 1, CHAIN1, SUMS1)
DEFINE_ADD_ENTRIES(bi_add_entries_2x2, 2, CHAIND, SUMS4)

#undef TABLE
#undef FIRST
#undef LOOK
#undef ADD
#undef END
#undef START4
#undef LEAD4
#undef PHASE4_1
#undef PHASE4_2
#undef PHASE4_0
#undef REST4_0
#undef REST4_1
#undef REST4_2
#undef END4
#undef CHAIN4_1
#undef CHAIN4_2
#undef CHAIN4_3
#undef CHAIN4_4
#undef CHAIN4_5
#undef CHAIN4_6
#undef CHAIN4_7
#undef START3
#undef LEAD3
#undef PHASE3
#undef REST3
#undef END3
#undef CHAIN3_1
#undef CHAIN3_2
#undef CHAIN3_3
#undef CHAIN3_4
#undef CHAIN3_5
#undef CHAIN3_6
#undef CHAIN3_7
#undef START2
#undef PHASE2
#undef END2
#undef CHAIN2_1
#undef CHAIN2_2
#undef CHAIN2_3
#undef CHAIN2_4
#undef CHAIN2_5
#undef CHAIN2_6
#undef CHAIN2_7
#undef START1
#undef PHASE1
#undef END1
#undef CHAIN1_1
#undef CHAIN1_2
#undef CHAIN1_3
#undef CHAIN1_4
#undef CHAIN1_5
#undef CHAIN1_6
#undef CHAIN1_7
#undef TABLES
#undef WEIGHT
#undef SHUFFLE
#undef STARTD
#undef PHASED
#undef ENDD
#undef CHAIND_1
#undef CHAIND_2
#undef CHAIND_3
#undef CHAIND_4
#undef CHAIND_5
#undef CHAIND_6
#undef CHAIND_7
#undef SUMS1
#undef SUMS2
#undef SUMS3
#undef SUMS4
#undef SCRATCH
#undef RUN
#undef DEFINE_ADD_ENTRIES

/* The sums of both pixels, as bytes 0..252, from F and H. */
BI_TARGET_avx2 static inline __attribute__((always_inline)) void
bi_separate_avx2(__m256i f, __m256i h, __m256i *a, __m256i *b)
{
    const __m256i high_digits = _mm256_set1_epi8((char)0xf0);
    const __m256i low_bytes_high_digits = _mm256_set1_epi16(0x00f0);
    *a = _mm256_sub_epi8(f, _mm256_and_si256(_mm256_slli_epi16(h, 4), high_digits));
    *b = _mm256_sub_epi8(h, _mm256_and_si256(_mm256_srli_epi16(*a, 4), low_bytes_high_digits));
}

#endif
