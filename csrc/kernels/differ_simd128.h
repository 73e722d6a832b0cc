/* differ_simd128.h -- XOR and popcount of 128 bits a step, where C becomes WebAssembly with SIMD128.
 *
 *   returns  sum of popcount(a[k] ^ b[k]) over k < words
 *
 * No CPU is asked what it has: a module with SIMD128 does not load where that is absent.  So the
 * portable kernels take this, as their vectors take whatever the compiler was told that there is.
 */
#ifndef BITINFER_DIFFER_SIMD128_H
#define BITINFER_DIFFER_SIMD128_H

#if defined(__wasm_simd128__)
#include <stddef.h>
#include <stdint.h>

#include <wasm_simd128.h>

/* A byte counts 8 bits a step, so it holds no more than this many steps; below so many words, adding
 * up the lanes takes longer than the words one by one. */
enum { bi_simd128_steps = 31, bi_simd128_words = 8 };

static inline int32_t bi_differ_simd128(const uint64_t *a, const uint64_t *b, size_t words)
{
    int32_t count = 0;
    size_t k = 0;
    if (words < bi_simd128_words) {
        for (; k < words; k++)
            count += __builtin_popcountll(a[k] ^ b[k]);
        return count;
    }
    v128_t sums = wasm_i32x4_splat(0);
    while (k + 2 <= words) {
        v128_t bytes = wasm_i8x16_splat(0);
        for (int step = 0; step < bi_simd128_steps && k + 2 <= words; step++, k += 2) {
            v128_t differ = wasm_v128_xor(wasm_v128_load(a + k), wasm_v128_load(b + k));
            bytes = wasm_i8x16_add(bytes, wasm_i8x16_popcnt(differ));
        }
        v128_t pairs = wasm_u16x8_extadd_pairwise_u8x16(bytes);
        sums = wasm_i32x4_add(sums, wasm_u32x4_extadd_pairwise_u16x8(pairs));
    }
    if (k < words)
        count = __builtin_popcountll(a[k] ^ b[k]);
    return count + wasm_i32x4_extract_lane(sums, 0) + wasm_i32x4_extract_lane(sums, 1) +
           wasm_i32x4_extract_lane(sums, 2) + wasm_i32x4_extract_lane(sums, 3);
}
#endif
#endif
