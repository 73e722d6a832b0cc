/* execute.c -- runs a list of steps over an arena: one call per inference. */
#include "bitinfer.h"
#include "kernels/kernel.h"
#include "kernels/table.h"

typedef struct {
    unsigned char *arena;
    void *const *externals;
    const int64_t *stride_bytes;
    int64_t sample;
} context;

static void *resolve(const context *in, bi_place place)
{
    if (place >= 0)
        return in->arena + place;
    int64_t external = -1 - place;
    return (unsigned char *)in->externals[external] + in->sample * in->stride_bytes[external];
}

void bi_execute(const bi_step *steps, int32_t n_steps, unsigned char *arena,
                void *const *externals, const int64_t *stride_bytes, int64_t samples)
{
    context in = {arena, externals, stride_bytes, 0};
    for (; in.sample < samples; in.sample++) {
        for (int32_t i = 0; i < n_steps; i++) {
            const bi_step *step = &steps[i];
            const bi_kernel *kernel = bi_kernel_at(step->kernel);
            bi_pointers at = {
                .source = resolve(&in, step->source),
                .beta = step->has_beta ? resolve(&in, step->beta) : NULL,
                .residual = step->has_residual ? resolve(&in, step->residual) : NULL,
                .target = resolve(&in, step->target),
                .signs = step->has_signs ? resolve(&in, step->signs) : NULL,
                .scratch = resolve(&in, step->scratch),
            };
            if (kernel->stage != NULL)
                kernel->stage(step, &at);
            kernel->run(step, &at, 0, step->rows);
        }
    }
}
