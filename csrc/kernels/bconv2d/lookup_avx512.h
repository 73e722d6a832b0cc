/* lookup_avx512.h -- the inner loop of the table kernels with 64 channels and two pixels to a
 * vector.
 *
 * The including file defines BI_TARGET and BI_ENTRY_BITS.  With 4 it is the loop of lookup_avx2.h,
 * for AVX-512 BW: an index is that of a table of both pixels.
 *
 * With 6, for VBMI: f is 0..3, so five look-ups fill a digit to at most 15, and 85 entries a byte
 * to at most 255.  A table for both pixels would come in 4096 kinds, too many for the cache; it is
 * made from two of 64 instead, one of them shifted into the high digits.
 *
 *     t[c] += (A[index of pixel A] | B[index of pixel B])[w[c]]         vpermb
 *
 * One statement adds up a whole part of K, for several pairs at once, since a weight vector that is
 * loaded serves them all:
 *
 *     zmm0-15   F and H       zmm16-23  t       zmm24-26  tables       zmm27-31  see below
 */
#ifndef BITINFER_LOOKUP_AVX512_H
#define BITINFER_LOOKUP_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "../isa.h"

#if BI_ENTRY_BITS == 6
enum { BI_CHAIN = 5, BI_LONGEST_SUM = 85 };

/* Make the table of pair p for entry i; pixel B lies `apart` bytes behind pixel A. */
#define TABLE(i, p, T)                                       \
    "movzwl 2*" #i "(%[index" #p "]), %%eax\n\t"             \
    "movzwl 2*" #i "(%[index" #p "],%[apart]), %%edx\n\t"    \
    "vmovdqa64 (%[table],%%rax), %%zmm" #T "\n\t"            \
    "vporq 4096(%[table],%%rdx), %%zmm" #T ", %%zmm" #T "\n\t"
#define LOOK(T, w, s) "vpermb %%zmm" #T ", %%zmm" #w ", %%zmm" #s "\n\t"
#else
enum { BI_CHAIN = 7, BI_LONGEST_SUM = 126 };

#define TABLE(i, p, T)                             \
    "movzwl 2*" #i "(%[index" #p "]), %%eax\n\t"   \
    "vbroadcasti32x4 (%[table],%%rax), %%zmm" #T "\n\t"
#define LOOK(T, w, s) "vpshufb %%zmm" #w ", %%zmm" #T ", %%zmm" #s "\n\t"
#endif

#define WEIGHT(vectors, i, v, w) \
    "vmovdqu64 64*(" #vectors "*" #i "+" #v ")(%[weight]), %%zmm" #w "\n\t"
#define ADD(s, t) "vpaddb %%zmm" #s ", %%zmm" #t ", %%zmm" #t "\n\t"
#define END(t, f, h)                                    \
    "vpaddb %%zmm" #t ", %[f" #f "], %[f" #f "]\n\t"    \
    "vpsrlw $4, %%zmm" #t ", %%zmm" #t "\n\t"           \
    "vpaddb %%zmm" #t ", %[h" #h "], %[h" #h "]\n\t"
#define CLEAR(n)                                       \
    "vpxord %[f" #n "], %[f" #n "], %[f" #n "]\n\t"    \
    "vpxord %[h" #n "], %[h" #n "], %[h" #n "]\n\t"

/* Two pairs, four vectors: t and sums are numbered 2 v + p.  zmm26: weights; zmm27-30: look-ups
 * whose addition trails by two. */
#define START_24                                                                                 \
    TABLE(0, 0, 24) TABLE(0, 1, 25)                                                              \
    WEIGHT(4, 0, 0, 26) LOOK(24, 26, 16) LOOK(25, 26, 17)                                        \
    WEIGHT(4, 0, 1, 26) LOOK(24, 26, 18) LOOK(25, 26, 19)                                        \
    WEIGHT(4, 0, 2, 26) LOOK(24, 26, 20) LOOK(25, 26, 21)                                        \
    WEIGHT(4, 0, 3, 26) LOOK(24, 26, 22) LOOK(25, 26, 23)
#define BODY_24(i, PENDING_0, PENDING_1)                                                         \
    TABLE(i, 0, 24) TABLE(i, 1, 25)                                                              \
    WEIGHT(4, i, 0, 26) LOOK(24, 26, 27) PENDING_0 LOOK(25, 26, 28) PENDING_1                    \
    WEIGHT(4, i, 1, 26) LOOK(24, 26, 29) ADD(27, 16) LOOK(25, 26, 30) ADD(28, 17)                \
    WEIGHT(4, i, 2, 26) LOOK(24, 26, 27) ADD(29, 18) LOOK(25, 26, 28) ADD(30, 19)                \
    WEIGHT(4, i, 3, 26) LOOK(24, 26, 29) ADD(27, 20) LOOK(25, 26, 30) ADD(28, 21)
#define LEAD_24(i) BODY_24(i, "", "")
#define NEXT_24(i) BODY_24(i, ADD(29, 22), ADD(30, 23))
#define REST_24 ADD(29, 22) ADD(30, 23)
#define END_24                                                                                   \
    END(16, 0, 0) END(17, 1, 1) END(18, 2, 2) END(19, 3, 3) END(20, 4, 4) END(21, 5, 5)          \
    END(22, 6, 6) END(23, 7, 7)
#define CLEAR_24                                                                                 \
    CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5) CLEAR(6) CLEAR(7)

/* Two pairs, three vectors: every look-up of an entry has its own register, zmm26-31 without the
 * weights' zmm23. */
#define START_23                                                                                 \
    TABLE(0, 0, 24) TABLE(0, 1, 25)                                                              \
    WEIGHT(3, 0, 0, 23) LOOK(24, 23, 16) LOOK(25, 23, 17)                                        \
    WEIGHT(3, 0, 1, 23) LOOK(24, 23, 18) LOOK(25, 23, 19)                                        \
    WEIGHT(3, 0, 2, 23) LOOK(24, 23, 20) LOOK(25, 23, 21)
#define BODY_23(i, PENDING_0, PENDING_1)                                                         \
    TABLE(i, 0, 24) TABLE(i, 1, 25)                                                              \
    WEIGHT(3, i, 0, 23) LOOK(24, 23, 26) PENDING_0 LOOK(25, 23, 27) PENDING_1                    \
    WEIGHT(3, i, 1, 23) LOOK(24, 23, 28) ADD(26, 16) LOOK(25, 23, 29) ADD(27, 17)                \
    WEIGHT(3, i, 2, 23) LOOK(24, 23, 30) ADD(28, 18) LOOK(25, 23, 31) ADD(29, 19)
#define LEAD_23(i) BODY_23(i, "", "")
#define NEXT_23(i) BODY_23(i, ADD(30, 20), ADD(31, 21))
#define REST_23 ADD(30, 20) ADD(31, 21)
#define END_23                                                                                   \
    END(16, 0, 0) END(17, 1, 1) END(18, 2, 2) END(19, 3, 3) END(20, 4, 4) END(21, 5, 5)
#define CLEAR_23 CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5)

/* Three pairs, two vectors: t and sums are numbered 3 v + p. */
#define START_32                                                                                 \
    TABLE(0, 0, 24) TABLE(0, 1, 25) TABLE(0, 2, 22)                                              \
    WEIGHT(2, 0, 0, 23) LOOK(24, 23, 16) LOOK(25, 23, 17) LOOK(22, 23, 18)                       \
    WEIGHT(2, 0, 1, 23) LOOK(24, 23, 19) LOOK(25, 23, 20) LOOK(22, 23, 21)
#define BODY_32(i, PENDING_0, PENDING_1, PENDING_2)                                              \
    TABLE(i, 0, 24) TABLE(i, 1, 25) TABLE(i, 2, 22)                                              \
    WEIGHT(2, i, 0, 23) LOOK(24, 23, 26) PENDING_0 LOOK(25, 23, 27) PENDING_1 LOOK(22, 23, 28)   \
    PENDING_2                                                                                    \
    WEIGHT(2, i, 1, 23) LOOK(24, 23, 29) ADD(26, 16) LOOK(25, 23, 30) ADD(27, 17)                \
    LOOK(22, 23, 31) ADD(28, 18)
#define LEAD_32(i) BODY_32(i, "", "", "")
#define NEXT_32(i) BODY_32(i, ADD(29, 19), ADD(30, 20), ADD(31, 21))
#define REST_32 ADD(29, 19) ADD(30, 20) ADD(31, 21)
#define END_32 END_23
#define CLEAR_32 CLEAR_23

/* Four pairs, one vector: t and sums are numbered p. */
#define START_41                                                                                 \
    TABLE(0, 0, 24) TABLE(0, 1, 25) TABLE(0, 2, 22) TABLE(0, 3, 21)                              \
    WEIGHT(1, 0, 0, 23) LOOK(24, 23, 16) LOOK(25, 23, 17) LOOK(22, 23, 18) LOOK(21, 23, 19)
#define BODY_41(i, PENDING)                                                                      \
    TABLE(i, 0, 24) TABLE(i, 1, 25) TABLE(i, 2, 22) TABLE(i, 3, 21)                              \
    WEIGHT(1, i, 0, 23) LOOK(24, 23, 26) PENDING LOOK(25, 23, 27) ADD(26, 16) LOOK(22, 23, 28)   \
    ADD(27, 17) LOOK(21, 23, 29) ADD(28, 18)
#define LEAD_41(i) BODY_41(i, "")
#define NEXT_41(i) BODY_41(i, ADD(29, 19))
#define REST_41 ADD(29, 19)
#define END_41 END(16, 0, 0) END(17, 1, 1) END(18, 2, 2) END(19, 3, 3)
#define CLEAR_41 CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3)

/* A chain of n entries of the shape s (24, 23, 32 or 41). */
#define CHAIN_0(s) ""
#define CHAIN_1(s) START_##s END_##s
#define CHAIN_2(s) START_##s LEAD_##s(1) REST_##s END_##s
#define CHAIN_3(s) START_##s LEAD_##s(1) NEXT_##s(2) REST_##s END_##s
#define CHAIN_4(s) START_##s LEAD_##s(1) NEXT_##s(2) NEXT_##s(3) REST_##s END_##s
#define CHAIN_5(s) START_##s LEAD_##s(1) NEXT_##s(2) NEXT_##s(3) NEXT_##s(4) REST_##s END_##s
#define CHAIN_6(s)                                                                               \
    START_##s LEAD_##s(1) NEXT_##s(2) NEXT_##s(3) NEXT_##s(4) NEXT_##s(5) REST_##s END_##s
#define CHAIN_7(s)                                                                               \
    START_##s LEAD_##s(1) NEXT_##s(2) NEXT_##s(3) NEXT_##s(4) NEXT_##s(5) NEXT_##s(6) REST_##s   \
    END_##s

#if BI_ENTRY_BITS == 6
#define WHOLE_CHAINS(s, vectors, ADVANCE)    \
    CHAIN_5(s) ADVANCE("$10") "add $(64*5*" #vectors "), %[weight]\n\t"
#else
#define WHOLE_CHAINS(s, vectors, ADVANCE)    \
    CHAIN_7(s) ADVANCE("$14") "add $(64*7*" #vectors "), %[weight]\n\t"
#endif

/* Every segment: all whole chains, then the chain of the n entries that are left. */
#define PART(s, vectors, n, ADVANCE)                                        \
    CLEAR_##s                                                               \
    "1:\n\t"                                                                \
    "mov %[chains], %%rcx\n\t"                                              \
    "test %%rcx, %%rcx\n\t"                                                 \
    "jz 3f\n\t"                                                             \
    ".p2align 6\n"                                                          \
    "2:\n\t" WHOLE_CHAINS(s, vectors, ADVANCE)                              \
    "dec %%rcx\n\t"                                                         \
    "jnz 2b\n"                                                              \
    "3:\n\t" CHAIN_##n(s) ADVANCE("%[step]")                                \
    "add $(64*" #n "*" #vectors "), %[weight]\n\t"                          \
    "dec %[segments]\n\t"                                                   \
    "jnz 1b\n\t"
#define ADVANCE_2(by) "add " by ", %[index0]\n\tadd " by ", %[index1]\n\t"
#define ADVANCE_3(by) ADVANCE_2(by) "add " by ", %[index2]\n\t"
#define ADVANCE_4(by) ADVANCE_3(by) "add " by ", %[index3]\n\t"

/* F and H of up to eight vectors. */
typedef struct {
    __m512i f[8], h[8];
} bi_sums_avx512;

#define SUMS_4                                                                               \
    [f0] "=&v"(s->f[0]), [h0] "=&v"(s->h[0]), [f1] "=&v"(s->f[1]), [h1] "=&v"(s->h[1]),      \
        [f2] "=&v"(s->f[2]), [h2] "=&v"(s->h[2]), [f3] "=&v"(s->f[3]), [h3] "=&v"(s->h[3])
#define SUMS_6                                                                               \
    SUMS_4, [f4] "=&v"(s->f[4]), [h4] "=&v"(s->h[4]), [f5] "=&v"(s->f[5]),                   \
        [h5] "=&v"(s->h[5])
#define SUMS_8                                                                               \
    SUMS_6, [f6] "=&v"(s->f[6]), [h6] "=&v"(s->h[6]), [f7] "=&v"(s->f[7]),                   \
        [h7] "=&v"(s->h[7])
#define INDEX_2 [index0] "+r"(index[0]), [index1] "+r"(index[1])
#define INDEX_3 INDEX_2, [index2] "+r"(index[2])
#define INDEX_4 INDEX_3, [index3] "+r"(index[3])
#define SCRATCH                                                                              \
    "rax", "rcx", "rdx", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",      \
        "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31",     \
        "cc", "memory"

#define RUN(s_, vectors, n, ADVANCE, indices, ...)                                           \
    __asm__ volatile(PART(s_, vectors, n, ADVANCE)                                           \
                     : __VA_ARGS__, indices, [weight] "+r"(weight),                          \
                       [segments] "+r"(segments)                                             \
                     : [apart] "r"(apart), [table] "r"(tables), [chains] "r"(chains),        \
                       [step] "r"(step)                                                      \
                     : SCRATCH)

/* Add up `segments` (at least 1) segments of `entries` entries each; index advances by row_step
 * bytes from one to the next, the weights are contiguous. */
#if BI_ENTRY_BITS == 6
#define LAST_REST 4
#define REST_CASES(s_, vectors, ...)
#else
#define LAST_REST 6
#define REST_CASES(s_, vectors, ...)                          \
    case 4: RUN(s_, vectors, 4, __VA_ARGS__); break;          \
    case 5: RUN(s_, vectors, 5, __VA_ARGS__); break;
#endif

#define DEFINE_ADD_PART(s_, pairs, vectors, ...)                                             \
    BI_TARGET static inline __attribute__((always_inline)) void                              \
    bi_add_part_##pairs##x##vectors(                                                         \
        const uint16_t **index, size_t apart, size_t row_step, const uint8_t *weight,        \
        size_t segments, size_t entries, const uint8_t *tables, bi_sums_avx512 *s)           \
    {                                                                                        \
        size_t chains = entries / BI_CHAIN;                                                  \
        size_t step = row_step - chains * BI_CHAIN * sizeof *index[0];                       \
        switch (entries % BI_CHAIN) {                                                        \
        case 0: RUN(s_, vectors, 0, __VA_ARGS__); break;                                     \
        case 1: RUN(s_, vectors, 1, __VA_ARGS__); break;                                     \
        case 2: RUN(s_, vectors, 2, __VA_ARGS__); break;                                     \
        case 3: RUN(s_, vectors, 3, __VA_ARGS__); break;                                     \
        REST_CASES(s_, vectors, __VA_ARGS__)                                                 \
        default: RUN(s_, vectors, LAST_REST, __VA_ARGS__); break;                            \
        }                                                                                    \
    }

DEFINE_ADD_PART(24, 2, 4, ADVANCE_2, INDEX_2, SUMS_8)
DEFINE_ADD_PART(23, 2, 3, ADVANCE_2, INDEX_2, SUMS_6)
DEFINE_ADD_PART(32, 3, 2, ADVANCE_3, INDEX_3, SUMS_6)
DEFINE_ADD_PART(41, 4, 1, ADVANCE_4, INDEX_4, SUMS_4)

/* The sums of both pixels, as bytes 0..255, from F and H. */
BI_TARGET static inline __attribute__((always_inline)) void
bi_separate_avx512(__m512i f, __m512i h, __m512i *a, __m512i *b)
{
    const __m512i high_digits = _mm512_set1_epi8((char)0xf0);
    const __m512i low_bytes_high_digits = _mm512_set1_epi16(0x00f0);
    *a = _mm512_sub_epi8(f, _mm512_and_si512(_mm512_slli_epi16(h, 4), high_digits));
    *b = _mm512_sub_epi8(h, _mm512_and_si512(_mm512_srli_epi16(*a, 4), low_bytes_high_digits));
}

#endif
