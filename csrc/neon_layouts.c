/* neon_layouts.c -- what the kernels for 64-bit Arm take and need, known on every CPU: networks are
 * exported as C for machines that they are not exported on. */
#include <string.h>

#include "bitinfer.h"
#include "kernels/bconv2d/lookup.h"
#include "kernels/bconv2d/pixels.h"
#include "kernels/isa.h"

#if defined(__aarch64__)
extern const bi_kernel bi_bconv2d_lookup4_neon;
#else
/* The same file as in bconv2d_neon.c, without the parts that run. */
#define BI_TARGET
#define BI_NAME(operation) bi_##operation##_lookup4_neon
#define BI_OWN(name) name##_lookup4_neon
#define NOT_WITH 0
#define LANES 16
#define write_pairs(a, b, words, to) ((void)(a), (void)(b), (void)(words), (void)(to))
#define odd_entries(pixel, words) ((void)(pixel), (void)(words), (uint16_t)0)
#define run_block NULL

static int BI_OWN(suits)(const bi_step *s)
{
    (void)s;
    return 1;
}

#include "kernels/bconv2d/lookup_pairs.inc"
#undef BI_TARGET
#undef BI_NAME
#undef BI_OWN
#undef NOT_WITH
#undef LANES
#undef write_pairs
#undef odd_entries
#undef run_block
#endif

/* Laid out without vectors, so the same on every CPU. */
static const bi_kernel pixels4_layout = {
    .takes = bi_pixels_take_neon,
    .leaves_gaps = 1,
    .block = SIXTEEN_OUTPUTS,
    .weight_bytes = bi_pixels_weight_bytes,
    .scratch_bytes = bi_pixels_scratch_bytes,
};

/* A kernel that takes every step, its weight as it is and no scratch. */
static const bi_kernel needs_nothing = {.block = 1};

static const struct {
    const char *operation, *method;
    const bi_kernel *layout;
} neon_kernels[] = {
    {"bconv2d", "pixels4", &pixels4_layout},
    {"bconv2d", "lookup4", &bi_bconv2d_lookup4_neon},
    {"bdense", "words", &needs_nothing},
    {"pack_signs", "compare", &needs_nothing},
};

int32_t bi_neon_needs(const char *operation, const char *method, const bi_step *step,
                      int64_t *weight_bytes, int64_t *scratch_bytes)
{
    for (size_t i = 0; i < sizeof neon_kernels / sizeof neon_kernels[0]; i++) {
        const bi_kernel *k = neon_kernels[i].layout;
        if (strcmp(neon_kernels[i].operation, operation) != 0 ||
            strcmp(neon_kernels[i].method, method) != 0)
            continue;
        if (!bi_kernel_takes(k, step))
            return 0;
        *weight_bytes = k->weight_bytes != NULL ? (int64_t)k->weight_bytes(step) : 0;
        *scratch_bytes = k->scratch_bytes != NULL ? (int64_t)k->scratch_bytes(step) : 0;
        return 1;
    }
    return -1;
}
