/* tile_avx2.h -- the inner loops: up to 6 pixels by 16 outputs.
 *
 *   sums[pixel][output] += broadcast(4 bytes of the pixel) * weight[step][output]
 *
 * over the steps of some runs (plane.h).  A step of floats is 12 fused multiply-adds, of integers
 * 12 vpmaddwd, each the sum of two products, and 12 additions.  Two multiplications a cycle make
 * that 16 or 32 multiply-accumulates a cycle at the most; six pixels by two vectors are as many sums
 * as 16 registers hold, and need 8 loads in 6 cycles where 12 are possible.  CPUs that do three vector
 * operations a cycle get no more than 24 of the integers: additions take turns with multiplications.
 *
 * Bytes by 8-bit weights take this way too.  vpmaddubsw adds two of their products in 16 bits, which
 * overflow unless the weights have 7: in the first layers of trained networks (XNOR-Net's NIN, AdaBin's
 * ResNet-20), for every tenth pair, and in most steps for some output.
 *
 * This is assembly because 12 sums, 2 weights and 2 temporaries are all the registers there are,
 * and compilers spill.  ymm0-11: sums, two of each pixel; ymm12, 13: weights; ymm14, 15: temporary.
 */
#ifndef BITINFER_CONV2D_TILE_AVX2_H
#define BITINFER_CONV2D_TILE_AVX2_H

#include <stddef.h>
#include <stdint.h>

#include "../isa.h"
#include "plane.h"

enum { BI_TILE_PIXELS = 6, BI_TILE_OUTPUTS = 16 };

#define FLOATS(pixel, a, b)                                            \
    "vbroadcastss (%[p" #pixel "], %[k]), %%ymm14\n\t"                 \
    "vfmadd231ps %%ymm14, %%ymm12, %%ymm" #a "\n\t"                    \
    "vfmadd231ps %%ymm14, %%ymm13, %%ymm" #b "\n\t"
#define INTEGERS(pixel, a, b)                                          \
    "vpbroadcastd (%[p" #pixel "], %[k]), %%ymm14\n\t"                 \
    "vpmaddwd %%ymm14, %%ymm12, %%ymm15\n\t"                           \
    "vpmaddwd %%ymm14, %%ymm13, %%ymm14\n\t"                           \
    "vpaddd %%ymm15, %%ymm" #a ", %%ymm" #a "\n\t"                     \
    "vpaddd %%ymm14, %%ymm" #b ", %%ymm" #b "\n\t"
#define LOAD(pixel, a, b)                                              \
    "vmovups 64*" #pixel "(%[k]), %%ymm" #a "\n\t"                     \
    "vmovups 64*" #pixel "+32(%[k]), %%ymm" #b "\n\t"
#define STORE(pixel, a, b)                                             \
    "vmovups %%ymm" #a ", 64*" #pixel "(%[sums])\n\t"                  \
    "vmovups %%ymm" #b ", 64*" #pixel "+32(%[sums])\n\t"

#define PIXELS1(OF) OF(0, 0, 1)
#define PIXELS2(OF) PIXELS1(OF) OF(1, 2, 3)
#define PIXELS3(OF) PIXELS2(OF) OF(2, 4, 5)
#define PIXELS4(OF) PIXELS3(OF) OF(3, 6, 7)
#define PIXELS5(OF) PIXELS4(OF) OF(4, 8, 9)
#define PIXELS6(OF) PIXELS5(OF) OF(5, 10, 11)

/* A tile of `count` pixels; the sums go on from those in `from`.  The loop begins on a line of the
 * cache: elsewhere it may take a cycle more. */
#define DEFINE_TILE(NAME, count, STEP)                                                          \
    BI_TARGET_avx2 static inline void NAME(const unsigned char *const *pixel,                   \
                                           const void *weight, const bi_run *run,               \
                                           const bi_run *end, const void *from, void *sums)     \
    {                                                                                           \
        int64_t stop;                                                                           \
        __asm__ volatile(PIXELS##count(LOAD)                                                    \
                         "1:\n\t"                                                               \
                         "mov (%[run]), %[k]\n\t"                                               \
                         "mov 8(%[run]), %[stop]\n\t"                                           \
                         ".p2align 6\n\t"                                                       \
                         "2:\n\t"                                                               \
                         "vmovaps (%[w]), %%ymm12\n\t"                                          \
                         "vmovaps 32(%[w]), %%ymm13\n\t"                                        \
                         PIXELS##count(STEP)                                                    \
                         "add $64, %[w]\n\t"                                                    \
                         "add $4, %[k]\n\t"                                                     \
                         "cmp %[stop], %[k]\n\t"                                                \
                         "jne 2b\n\t"                                                           \
                         "add $24, %[run]\n\t"                                                  \
                         "cmp %[end], %[run]\n\t"                                               \
                         "jne 1b\n\t"                                                           \
                         PIXELS##count(STORE)                                                   \
                         : [w] "+r"(weight), [run] "+r"(run), [k] "+r"(from),                   \
                           [stop] "=&r"(stop)                                                   \
                         : [end] "r"(end), [sums] "r"(sums), [p0] "r"(pixel[0]),                \
                           [p1] "r"(pixel[count > 1 ? 1 : 0]),                                  \
                           [p2] "r"(pixel[count > 2 ? 2 : 0]),                                  \
                           [p3] "r"(pixel[count > 3 ? 3 : 0]),                                  \
                           [p4] "r"(pixel[count > 4 ? 4 : 0]),                                  \
                           [p5] "r"(pixel[count > 5 ? 5 : 0])                                   \
                         : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",      \
                           "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",  \
                           "xmm14", "xmm15");                                                   \
    }

/* Tiles of `count` pixels. */
#define DEFINE_TILES(NAME, STEP)                                                                \
    DEFINE_TILE(NAME##_1, 1, STEP)                                                              \
    DEFINE_TILE(NAME##_2, 2, STEP)                                                              \
    DEFINE_TILE(NAME##_3, 3, STEP)                                                              \
    DEFINE_TILE(NAME##_4, 4, STEP)                                                              \
    DEFINE_TILE(NAME##_5, 5, STEP)                                                              \
    DEFINE_TILE(NAME##_6, 6, STEP)                                                              \
    BI_TARGET_avx2 static void NAME(size_t count, const unsigned char *const *pixel,            \
                                    const void *weight, const bi_run *run, const bi_run *end,   \
                                    const void *from, void *sums)                               \
    {                                                                                           \
        switch (count) {                                                                        \
        case 1: NAME##_1(pixel, weight, run, end, from, sums); break;                           \
        case 2: NAME##_2(pixel, weight, run, end, from, sums); break;                           \
        case 3: NAME##_3(pixel, weight, run, end, from, sums); break;                           \
        case 4: NAME##_4(pixel, weight, run, end, from, sums); break;                           \
        case 5: NAME##_5(pixel, weight, run, end, from, sums); break;                           \
        default: NAME##_6(pixel, weight, run, end, from, sums); break;                          \
        }                                                                                       \
    }

#endif
