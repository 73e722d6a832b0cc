/* kernel.h -- what a kernel is: one method for one operation on one instruction set.
 *
 * A kernel never allocates, locks, logs or starts threads.  Its run() computes the rows
 * [begin, end) of the step, so that several threads can share a step; stage(), if there is one,
 * fills the scratch once before any row runs.
 */
#ifndef BITINFER_KERNEL_H
#define BITINFER_KERNEL_H

#include "../bitinfer.h"

/* The places of a step, resolved for one sample. */
typedef struct bi_pointers {
    const void *source;
    const float *beta;        /* NULL where the step has none */
    const float *residual;    /* NULL where the step has none */
    void *target;
    uint64_t *signs;          /* NULL where the step has none */
    void *scratch;
    /* Set by bi_note_lost(), by kernels that look, where the source has a NaN or infinity; NULL: nobody
     * asks. */
    int *lost;
} bi_pointers;

typedef struct bi_kernel {
    int (*takes)(const bi_step *step); /* or NULL: any */
    int32_t not_with; /* BI_ISA_*: passed over where kernels of that instruction set may run; 0:
                          * nowhere */
    int32_t leaves_gaps; /* whether it takes steps with target_gap or residual_gap */
    int32_t block; /* outputs of a group (where there is no weight: channels) that the innermost
                          * loop computes at a time */
    /* Whether it looks for what is not finite, in all of the source, while it reads (bi_pointers.lost);
     * or NULL: never. */
    int (*looks)(const bi_step *step);
    size_t (*weight_bytes)(const bi_step *step); /* or NULL */
    void (*pack_weight)(const bi_step *step, const void *canonical, void *packed); /* or NULL */
    size_t (*scratch_bytes)(const bi_step *step); /* or NULL */
    void (*stage)(const bi_step *step, const bi_pointers *at); /* or NULL */
    void (*run)(const bi_step *step, const bi_pointers *at, int32_t begin, int32_t end);
    /* stage() and run() for each of at[0] to at[samples - 1], which have one scratch in common,
     * reading the weights once for several; or NULL. */
    void (*run_batch)(const bi_step *step, const bi_pointers *at, size_t samples, int32_t begin,
                      int32_t end);
} bi_kernel;

/* Several threads may do so at once. */
static inline void bi_note_lost(int *lost) { __atomic_store_n(lost, 1, __ATOMIC_RELAXED); }

/* Whether a kernel computes a step. */
static inline int bi_kernel_takes(const bi_kernel *kernel, const bi_step *step)
{
    int has_gaps = step->target_gap != 0 || step->residual_gap != 0;
    return (!has_gaps || kernel->leaves_gaps) && (kernel->takes == NULL || kernel->takes(step));
}

/* Words that hold `length` signs (src/bitinfer/bits.py is the bit convention). */
static inline size_t bi_words(int32_t length) { return ((size_t)length + 63) / 64; }

/* The taps of a window that fall inside the map, along one axis: from *first up to *end. */
static inline void bi_valid_taps(int32_t out, int32_t stride, int32_t pad, int32_t dilation,
                                 int32_t taps, int32_t extent, int32_t *first, int32_t *end)
{
    int32_t origin = out * stride - pad;
    int32_t low = origin >= 0 ? 0 : (-origin + dilation - 1) / dilation;
    int32_t high = origin >= extent ? 0 : (extent - origin + dilation - 1) / dilation;
    *end = high < taps ? high : taps;
    *first = low < *end ? low : *end;
}

#endif
