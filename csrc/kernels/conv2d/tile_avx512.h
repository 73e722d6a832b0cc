/* tile_avx512.h -- the inner loops of 512-bit vectors: some pixels by up to 64 outputs.
 *
 *   sums[pixel][output] += dot(4 bytes of the pixel, 4 bytes of weight[step][output])
 *
 * over the steps of some runs (plane.h): one instruction for 16 outputs of a pixel, which is a product
 * of floats, two of 16-bit integers or four of bytes, of pixels without and weights with a sign.  Two
 * such instructions a cycle make that 32, 64 or 128 multiply-accumulates at the most; CPUs that have one
 * 512-bit unit, or halve such vectors, do no more of them with 256 bits.
 *
 * A vector of weights serves all pixels, a broadcast pixel all vectors.  6 pixels by 3 or 4 vectors, or 8
 * by 1 or 2, are as many sums as hide the latency of each other; with more, pointers to pixels run out.
 * The pixel is broadcast from memory, because from a register it would pass the port of the products.
 *
 * This is assembly because compilers spill the sums.  zmm0-23: sums; zmm24: the pixel; zmm28-31: weights.
 */
#ifndef BITINFER_CONV2D_TILE_AVX512_H
#define BITINFER_CONV2D_TILE_AVX512_H

#include <stddef.h>
#include <stdint.h>

#include "../isa.h"
#include "plane.h"

enum { BI_WIDE_PIXELS = 8, BI_WIDE_VECTORS = 4 };

/* The most pixels of a tile. */
static inline size_t bi_wide_pixels(size_t vectors) { return vectors <= 2 ? 8 : 6; }

/* Adds to the sums [pixel][16 * vectors], which go on from those in `from`, or from 0 if it is NULL. */
typedef void bi_wide_tile(const unsigned char *const *pixel, const void *weight, const bi_run *run,
                          const bi_run *end, const void *from, void *sums);

/* What a step does with vector number `w` of `n`, whose weights are in zmm(28 + w), for the sums in
 * zmm(sum) of a pixel. */
#define SUM_LOAD(pixel, w, sum, n) "vmovups 64*(" #n "*" #pixel "+" #w ")(%[k]), %%zmm" #sum "\n\t"
#define SUM_STORE(pixel, w, sum, n) "vmovups %%zmm" #sum ", 64*(" #n "*" #pixel "+" #w ")(%[k])\n\t"
#define SUM_CLEAR(pixel, w, sum, n) "vpxord %%zmm" #sum ", %%zmm" #sum ", %%zmm" #sum "\n\t"
#define SUM_FLOATS(pixel, w, sum, n) "vfmadd231ps " WEIGHT_##w ", %%zmm24, %%zmm" #sum "\n\t"
#define SUM_WORDS(pixel, w, sum, n) "vpdpwssd " WEIGHT_##w ", %%zmm24, %%zmm" #sum "\n\t"
#define SUM_BYTES(pixel, w, sum, n) "vpdpbusd " WEIGHT_##w ", %%zmm24, %%zmm" #sum "\n\t"
#define WEIGHT_0 "%%zmm28"
#define WEIGHT_1 "%%zmm29"
#define WEIGHT_2 "%%zmm30"
#define WEIGHT_3 "%%zmm31"

#define OF_1(WHAT, pixel, a, b, c, d) WHAT(pixel, 0, a, 1)
#define OF_2(WHAT, pixel, a, b, c, d) WHAT(pixel, 0, a, 2) WHAT(pixel, 1, b, 2)
#define OF_3(WHAT, pixel, a, b, c, d) WHAT(pixel, 0, a, 3) WHAT(pixel, 1, b, 3) WHAT(pixel, 2, c, 3)
#define OF_4(WHAT, pixel, a, b, c, d) \
    WHAT(pixel, 0, a, 4) WHAT(pixel, 1, b, 4) WHAT(pixel, 2, c, 4) WHAT(pixel, 3, d, 4)

#define BROADCAST(pixel) "vbroadcastss (%[p" #pixel "], %[k]), %%zmm24\n\t"
#define BROADCAST_2(pixel) "vbroadcastsd (%[p" #pixel "], %[k]), %%zmm24\n\t"
#define BROADCAST_4(pixel) "vbroadcastf32x4 (%[p" #pixel "], %[k]), %%zmm24\n\t"
#define TAKE_LOAD(OF, pixel, ...) OF(SUM_LOAD, pixel, __VA_ARGS__)
#define TAKE_STORE(OF, pixel, ...) OF(SUM_STORE, pixel, __VA_ARGS__)
#define TAKE_CLEAR(OF, pixel, ...) OF(SUM_CLEAR, pixel, __VA_ARGS__)
#define TAKE_FLOATS(OF, pixel, ...) BROADCAST(pixel) OF(SUM_FLOATS, pixel, __VA_ARGS__)
#define TAKE_2_FLOATS(OF, pixel, ...) BROADCAST_2(pixel) OF(SUM_FLOATS, pixel, __VA_ARGS__)
#define TAKE_4_FLOATS(OF, pixel, ...) BROADCAST_4(pixel) OF(SUM_FLOATS, pixel, __VA_ARGS__)
#define TAKE_WORDS(OF, pixel, ...) BROADCAST(pixel) OF(SUM_WORDS, pixel, __VA_ARGS__)
#define TAKE_BYTES(OF, pixel, ...) BROADCAST(pixel) OF(SUM_BYTES, pixel, __VA_ARGS__)

/* The sums of each pixel: two vectors for up to 8, four for up to 6. */
#define PAIRS_1(TAKE, OF) TAKE(OF, 0, 0, 1, , )
#define PAIRS_2(TAKE, OF) PAIRS_1(TAKE, OF) TAKE(OF, 1, 2, 3, , )
#define PAIRS_3(TAKE, OF) PAIRS_2(TAKE, OF) TAKE(OF, 2, 4, 5, , )
#define PAIRS_4(TAKE, OF) PAIRS_3(TAKE, OF) TAKE(OF, 3, 6, 7, , )
#define PAIRS_5(TAKE, OF) PAIRS_4(TAKE, OF) TAKE(OF, 4, 8, 9, , )
#define PAIRS_6(TAKE, OF) PAIRS_5(TAKE, OF) TAKE(OF, 5, 10, 11, , )
#define PAIRS_7(TAKE, OF) PAIRS_6(TAKE, OF) TAKE(OF, 6, 12, 13, , )
#define PAIRS_8(TAKE, OF) PAIRS_7(TAKE, OF) TAKE(OF, 7, 14, 15, , )
#define QUADS_1(TAKE, OF) TAKE(OF, 0, 0, 1, 2, 3)
#define QUADS_2(TAKE, OF) QUADS_1(TAKE, OF) TAKE(OF, 1, 4, 5, 6, 7)
#define QUADS_3(TAKE, OF) QUADS_2(TAKE, OF) TAKE(OF, 2, 8, 9, 10, 11)
#define QUADS_4(TAKE, OF) QUADS_3(TAKE, OF) TAKE(OF, 3, 12, 13, 14, 15)
#define QUADS_5(TAKE, OF) QUADS_4(TAKE, OF) TAKE(OF, 4, 16, 17, 18, 19)
#define QUADS_6(TAKE, OF) QUADS_5(TAKE, OF) TAKE(OF, 5, 20, 21, 22, 23)

#define WEIGHTS_1 "vmovaps (%[w]), %%zmm28\n\t"
#define WEIGHTS_2 WEIGHTS_1 "vmovaps 64(%[w]), %%zmm29\n\t"
#define WEIGHTS_3 WEIGHTS_2 "vmovaps 128(%[w]), %%zmm30\n\t"
#define WEIGHTS_4 WEIGHTS_3 "vmovaps 192(%[w]), %%zmm31\n\t"

/* A tile of `count` pixels by `vectors` vectors, whose sums lie as PIXELS says; a step is so many BYTES
 * of a pixel.  The loop begins on a line of the cache.  `end` and `sums` stay in memory: registers are
 * for pixels. */
#define DEFINE_WIDE_TILE(NAME, count, vectors, PIXELS, STEP, BYTES)                              \
    BI_TARGET_avx512vbmi static void NAME(const unsigned char *const *pixel, const void *weight, \
                                          const bi_run *run, const bi_run *end,                  \
                                          const void *from, void *sums)                          \
    {                                                                                            \
        int64_t stop;                                                                            \
        __asm__ volatile("test %[k], %[k]\n\t"                                                   \
                         "jz 3f\n\t"                                                             \
                         PIXELS(TAKE_LOAD, OF_##vectors)                                         \
                         "jmp 1f\n\t"                                                            \
                         "3:\n\t"                                                                \
                         PIXELS(TAKE_CLEAR, OF_##vectors)                                        \
                         "1:\n\t"                                                                \
                         "mov (%[run]), %[k]\n\t"                                                \
                         "mov 8(%[run]), %[stop]\n\t"                                            \
                         ".p2align 6\n\t"                                                        \
                         "2:\n\t"                                                                \
                         WEIGHTS_##vectors                                                       \
                         PIXELS(STEP, OF_##vectors)                                              \
                         "add $64*" #vectors ", %[w]\n\t"                                        \
                         "add $" #BYTES ", %[k]\n\t"                                             \
                         "cmp %[stop], %[k]\n\t"                                                 \
                         "jne 2b\n\t"                                                            \
                         "add $24, %[run]\n\t"                                                   \
                         "cmp %[end], %[run]\n\t"                                                \
                         "jne 1b\n\t"                                                            \
                         "mov %[sums], %[k]\n\t"                                                 \
                         PIXELS(TAKE_STORE, OF_##vectors)                                        \
                         : [w] "+r"(weight), [run] "+r"(run), [k] "+r"(from),                    \
                           [stop] "=&r"(stop)                                                    \
                         : [end] "m"(end), [sums] "m"(sums), [p0] "r"(pixel[0]),                 \
                           [p1] "r"(pixel[count > 1 ? 1 : 0]),                                   \
                           [p2] "r"(pixel[count > 2 ? 2 : 0]),                                   \
                           [p3] "r"(pixel[count > 3 ? 3 : 0]),                                   \
                           [p4] "r"(pixel[count > 4 ? 4 : 0]),                                   \
                           [p5] "r"(pixel[count > 5 ? 5 : 0]),                                   \
                           [p6] "r"(pixel[count > 6 ? 6 : 0]),                                   \
                           [p7] "r"(pixel[count > 7 ? 7 : 0])                                    \
                         : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",       \
                           "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",   \
                           "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20",        \
                           "xmm21", "xmm22", "xmm23", "xmm24", "xmm28", "xmm29", "xmm30",        \
                           "xmm31");                                                             \
    }

#define DEFINE_WIDE_PAIRS(NAME, vectors, STEP, BYTES)                       \
    DEFINE_WIDE_TILE(NAME##_1_##vectors, 1, vectors, PAIRS_1, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_2_##vectors, 2, vectors, PAIRS_2, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_3_##vectors, 3, vectors, PAIRS_3, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_4_##vectors, 4, vectors, PAIRS_4, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_5_##vectors, 5, vectors, PAIRS_5, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_6_##vectors, 6, vectors, PAIRS_6, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_7_##vectors, 7, vectors, PAIRS_7, STEP, BYTES)  \
    DEFINE_WIDE_TILE(NAME##_8_##vectors, 8, vectors, PAIRS_8, STEP, BYTES)
#define DEFINE_WIDE_QUADS(NAME, vectors, STEP)                          \
    DEFINE_WIDE_TILE(NAME##_1_##vectors, 1, vectors, QUADS_1, STEP, 4)  \
    DEFINE_WIDE_TILE(NAME##_2_##vectors, 2, vectors, QUADS_2, STEP, 4)  \
    DEFINE_WIDE_TILE(NAME##_3_##vectors, 3, vectors, QUADS_3, STEP, 4)  \
    DEFINE_WIDE_TILE(NAME##_4_##vectors, 4, vectors, QUADS_4, STEP, 4)  \
    DEFINE_WIDE_TILE(NAME##_5_##vectors, 5, vectors, QUADS_5, STEP, 4)  \
    DEFINE_WIDE_TILE(NAME##_6_##vectors, 6, vectors, QUADS_6, STEP, 4)

/* NAME[vectors - 1][count - 1]. */
#define DEFINE_WIDE_TILES(NAME, STEP)                                                          \
    DEFINE_WIDE_PAIRS(NAME, 1, STEP, 4)                                                        \
    DEFINE_WIDE_PAIRS(NAME, 2, STEP, 4)                                                        \
    DEFINE_WIDE_QUADS(NAME, 3, STEP)                                                           \
    DEFINE_WIDE_QUADS(NAME, 4, STEP)                                                           \
    static bi_wide_tile *const NAME[BI_WIDE_VECTORS][BI_WIDE_PIXELS] = {                       \
        {NAME##_1_1, NAME##_2_1, NAME##_3_1, NAME##_4_1, NAME##_5_1, NAME##_6_1, NAME##_7_1,   \
         NAME##_8_1},                                                                          \
        {NAME##_1_2, NAME##_2_2, NAME##_3_2, NAME##_4_2, NAME##_5_2, NAME##_6_2, NAME##_7_2,   \
         NAME##_8_2},                                                                          \
        {NAME##_1_3, NAME##_2_3, NAME##_3_3, NAME##_4_3, NAME##_5_3, NAME##_6_3},              \
        {NAME##_1_4, NAME##_2_4, NAME##_3_4, NAME##_4_4, NAME##_5_4, NAME##_6_4},              \
    };

/* NAME[count - 1]: of one vector, whose lanes are of several groups in turn; a step is a number of each
 * of those groups, BYTES together. */
#define DEFINE_GROUP_TILES(NAME, STEP, BYTES)                                                  \
    DEFINE_WIDE_PAIRS(NAME, 1, STEP, BYTES)                                                    \
    static bi_wide_tile *const NAME[BI_WIDE_PIXELS] = {NAME##_1_1, NAME##_2_1, NAME##_3_1,     \
                                                       NAME##_4_1, NAME##_5_1, NAME##_6_1,     \
                                                       NAME##_7_1, NAME##_8_1};

#endif
