/* conv2d_avx2.c -- which way a layer is computed. */
#if defined(__x86_64__)
#include "layers_avx2.h"

size_t bi_layers_weight_bytes(const bi_step *s)
{
    if (bi_depthwise_takes(s))
        return bi_depthwise_weight_bytes(s);
    return bi_dense_takes(s) ? bi_dense_weight_bytes(s) : bi_tiles_weight_bytes(s);
}

void bi_layers_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    if (bi_depthwise_takes(s))
        bi_depthwise_pack_weight(s, canonical, packed);
    else if (bi_dense_takes(s))
        bi_dense_pack_weight(s, canonical, packed);
    else
        bi_tiles_pack_weight(s, canonical, packed);
}

size_t bi_layers_scratch_bytes(const bi_step *s)
{
    if (bi_depthwise_takes(s))
        return 0;
    return bi_dense_takes(s) ? bi_dense_scratch_bytes(s) : bi_tiles_scratch_bytes(s);
}

void bi_layers_stage(const bi_step *s, const bi_pointers *at)
{
    if (bi_depthwise_takes(s))
        return;
    if (bi_dense_takes(s))
        bi_dense_stage(s, at);
    else
        bi_tiles_stage(s, at);
}

void bi_layers_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end,
                   bi_tile *of_integers)
{
    if (begin == end)
        return;
    if (bi_depthwise_takes(s))
        bi_depthwise_run(s, at, begin, end);
    else if (bi_dense_takes(s))
        bi_dense_run(s, at);
    else
        bi_tiles_run(s, at, begin, end, of_integers);
}

void bi_layers_run_batch(const bi_step *s, const bi_pointers *at, size_t samples, int32_t begin,
                         int32_t end, bi_tile *of_integers)
{
    size_t n = 0;
    for (; begin < end && bi_dense_takes_four(s) && n + 4 <= samples; n += 4)
        bi_dense_run_four(s, at + n);
    for (; n < samples; n++) {
        bi_layers_stage(s, at + n);
        bi_layers_run(s, at + n, begin, end, of_integers);
    }
}

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    bi_layers_run(s, at, begin, end, NULL);
}

static void run_batch(const bi_step *s, const bi_pointers *at, size_t samples, int32_t begin,
                      int32_t end)
{
    bi_layers_run_batch(s, at, samples, begin, end, NULL);
}

const bi_kernel bi_conv2d_avx2 = {
    .weight_bytes = bi_layers_weight_bytes,
    .pack_weight = bi_layers_pack_weight,
    .scratch_bytes = bi_layers_scratch_bytes,
    .stage = bi_layers_stage,
    .run = run,
};
const bi_kernel bi_dense_avx2 = {
    .weight_bytes = bi_layers_weight_bytes,
    .pack_weight = bi_layers_pack_weight,
    .scratch_bytes = bi_layers_scratch_bytes,
    .stage = bi_layers_stage,
    .run = run,
    .run_batch = run_batch,
};
#endif
