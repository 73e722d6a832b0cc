/* execute.c -- runs a list of steps over an arena: one call per inference. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "bitinfer.h"
#include "kernels/kernel.h"
#include "kernels/table.h"
#include "threads.h"

typedef struct {
    const bi_plan *plan;
    unsigned char *arenas;        /* one for every thread of the pool */
    void *const *externals;
    int64_t samples;
    bi_pool *pool;                /* NULL: this thread alone */
    int64_t *nanoseconds;         /* NULL: not timed */
} call;

typedef struct {
    const bi_kernel *kernel;
    const bi_step *step;
    const bi_pointers *at;
} job;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *resolve(const call *in, unsigned char *arena, int64_t sample, bi_place place)
{
    if (place >= 0)
        return arena + place;
    int64_t external = -1 - place;
    return (unsigned char *)in->externals[external] + sample * in->plan->stride_bytes[external];
}

static void run_rows(void *context, int32_t part, int32_t parts, int32_t thread)
{
    (void)thread;
    const job *j = context;
    int64_t rows = j->step->rows;
    j->kernel->run(j->step, j->at, (int32_t)bi_part_begin(rows, part, parts),
                   (int32_t)bi_part_begin(rows, part + 1, parts));
}

/* All steps of one sample; with a pool, the rows of a step are shared out. */
static void run_sample(const call *in, unsigned char *arena, int64_t sample, bi_pool *pool)
{
    const bi_plan *plan = in->plan;
    int64_t started = in->nanoseconds != NULL ? now() : 0;
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const bi_step *step = &plan->steps[i];
        const bi_kernel *kernel = bi_kernel_at(step->kernel);
        bi_pointers at = {
            .source = resolve(in, arena, sample, step->source),
            .beta = step->has_beta ? resolve(in, arena, sample, step->beta) : NULL,
            .residual = step->has_residual ? resolve(in, arena, sample, step->residual) : NULL,
            .target = resolve(in, arena, sample, step->target),
            .signs = step->has_signs ? resolve(in, arena, sample, step->signs) : NULL,
            .scratch = resolve(in, arena, sample, step->scratch),
        };
        if (kernel->stage != NULL)
            kernel->stage(step, &at);
        if (pool != NULL && step->parts > 1) {
            job j = {kernel, step, &at};
            bi_pool_run(pool, run_rows, &j, step->parts);
        } else {
            kernel->run(step, &at, 0, step->rows);
        }
        if (in->nanoseconds != NULL) {
            int64_t finished = now();
            in->nanoseconds[i] += finished - started;
            started = finished;
        }
    }
}

/* Whole samples for each thread, in an arena of its own: no thread waits between steps. */
static void run_samples(void *context, int32_t part, int32_t parts, int32_t thread)
{
    const call *in = context;
    int64_t end = bi_part_begin(in->samples, part + 1, parts);
    for (int64_t n = bi_part_begin(in->samples, part, parts); n < end; n++)
        run_sample(in, in->arenas + thread * in->plan->arena_bytes, n, NULL);
}

void bi_execute(const bi_plan *plan, unsigned char *arenas, void *const *externals,
                int64_t samples, bi_pool *pool, int64_t *nanoseconds)
{
    call in = {plan, arenas, externals, samples, pool, nanoseconds};
    int shared = bi_pool_acquire(pool);
    if (shared && nanoseconds == NULL && samples >= bi_pool_size(pool)) {
        int64_t parts = samples < BI_PARTS_LIMIT ? samples : BI_PARTS_LIMIT;
        bi_pool_run(pool, run_samples, &in, (int32_t)parts);
    } else {
        for (int64_t n = 0; n < samples; n++)
            run_sample(&in, arenas, n, shared ? pool : NULL);
    }
    if (shared)
        bi_pool_release(pool);
}
