/* bdense.h -- product of a matrix of signs with a vector of signs.
 *
 *   dot[o]    = in_c - 2 * popcount(source ^ weight[o])
 *   target[o] = the epilogue of dot (../epilogue.h)
 *
 * source  [words(in_c)] u64;  weight canonical, [out_c][words(in_c)] u64; stray bits 0 in both
 * beta    [1] f32, or NULL;  alpha, bias [out_c] f32, or NULL;  residual [out_c] f32, or NULL
 * target  [out_c] f32, or [words(out_c)] u64
 * rows    blocks of 64 outputs
 */
#ifndef BITINFER_BDENSE_H
#define BITINFER_BDENSE_H

#include "../epilogue.h"

/* Units of work are blocks of 64 outputs, so that no two share a word of a packed target. */
enum { BI_BDENSE_BLOCK = 64 };

/* Write the outputs from o on, at most 16, from how many signs differ in each. */
static inline void bi_bdense_finish(const bi_step *s, const bi_pointers *at, int32_t o,
                                    int32_t count, const int64_t *differing)
{
    int32_t dot[16];
    for (int32_t i = 0; i < count; i++)
        dot[i] = s->in_c - 2 * (int32_t)differing[i];
    bi_output_pixel pixel = bi_output_at(s, at, 0, 0);
    bi_finish(s, &pixel, o, count, dot);
}

/* Re-lay the weight: [block of `lanes` outputs][word][lanes] u64, missing outputs 0. */
static inline void bi_bdense_interleave(const bi_step *s, const uint64_t *canonical,
                                        uint64_t *packed, int32_t lanes)
{
    size_t words = bi_words(s->in_c);
    for (int32_t o = 0; o % lanes != 0 || o < s->out_c; o++) {
        uint64_t *block = packed + (size_t)(o / lanes * lanes) * words + (size_t)(o % lanes);
        for (size_t k = 0; k < words; k++)
            block[k * (size_t)lanes] = o < s->out_c ? canonical[(size_t)o * words + k] : 0;
    }
}

#endif
