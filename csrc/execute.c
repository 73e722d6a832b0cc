/* execute.c -- runs a list of steps over an arena: one call per inference. */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <string.h>
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
    int *lost;                    /* set to 1 where a sample has a NaN or infinity */
} call;

typedef struct {
    const bi_kernel *kernel;
    const bi_step *step;
    const bi_pointers *at;
    int32_t begin, end;
} job;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Where a sample lies: its number, and which part of the arena holds what is its own. */
typedef struct {
    unsigned char *arena;
    int64_t number;
    int32_t slot;
} sample;

static void *resolve(const call *in, const sample *of, bi_place place)
{
    const bi_plan *plan = in->plan;
    if (place >= plan->shared_bytes)
        return of->arena + place + of->slot * plan->sample_bytes;
    if (place >= 0)
        return of->arena + place;
    int64_t external = -1 - place;
    return (unsigned char *)in->externals[external] + of->number * plan->stride_bytes[external];
}

/* Whether the first step finds out by itself what is not finite, since it reads all of the input. */
static int first_step_looks(const bi_plan *plan)
{
    const bi_step *first = &plan->steps[0];
    if (plan->n_steps == 0 || first->source != -1)
        return 0;
    const bi_kernel *kernel = bi_kernel_at(first->kernel);
    return kernel->looks != NULL && kernel->looks(first);
}

/* Look for what is not finite in a sample, unless the first step does. */
static void look(const call *in, const sample *of)
{
    const bi_plan *plan = in->plan;
    if (plan->is_float && !first_step_looks(plan) &&
        !bi_all_finite(resolve(in, of, -1), plan->stride_bytes[0] / (int64_t)sizeof(float)))
        bi_note_lost(in->lost);
}

static bi_pointers pointers_of(const call *in, const sample *of, const bi_step *step)
{
    bi_pointers at = {
        .source = resolve(in, of, step->source),
        .beta = step->has_beta ? resolve(in, of, step->beta) : NULL,
        .residual = step->has_residual ? resolve(in, of, step->residual) : NULL,
        .target = resolve(in, of, step->target),
        .signs = step->has_signs ? resolve(in, of, step->signs) : NULL,
        .scratch = resolve(in, of, step->scratch),
        .lost = in->plan->is_float && step == in->plan->steps ? in->lost : NULL,
    };
    return at;
}

static void run_rows(void *context, int32_t part, int32_t parts, int32_t thread)
{
    (void)thread;
    const job *j = context;
    int64_t rows = j->end - j->begin;
    int32_t begin = j->begin + (int32_t)bi_part_begin(rows, part, parts);
    int32_t end = j->begin + (int32_t)bi_part_begin(rows, part + 1, parts);
    if (begin < end)
        j->kernel->run(j->step, j->at, begin, end);
}

/* Some rows of a step; with a pool, they are shared out. */
static void run_range(const job *j, bi_pool *pool)
{
    if (pool != NULL && j->step->parts > 1) {
        job shared = *j;
        bi_pool_run(pool, run_rows, &shared, j->step->parts);
    } else {
        j->kernel->run(j->step, j->at, j->begin, j->end);
    }
}

/* Rows of one step of one sample from `begin` on, at most `most` of them or (0) all; returns the first
 * that is left.  With a pool, they are shared out. */
static int32_t run_step(const call *in, const sample *of, const bi_step *step, bi_pool *pool,
                        int32_t begin, int32_t most)
{
    const bi_kernel *kernel = bi_kernel_at(step->kernel);
    bi_pointers at = pointers_of(in, of, step);
    if (begin == 0 && kernel->stage != NULL)
        kernel->stage(step, &at);
    int32_t left = step->rows - begin;
    job some = {kernel, step, &at, begin, begin + (most > 0 && most < left ? most : left)};
    run_range(&some, pool);
    return some.end;
}

/* One step of all samples of a chunk. */
static void run_step_of_all(const call *in, const sample *all, int32_t count, const bi_step *step)
{
    const bi_kernel *kernel = bi_kernel_at(step->kernel);
    if (kernel->run_batch == NULL || count == 1) {
        for (int32_t n = 0; n < count; n++)
            run_step(in, &all[n], step, NULL, 0, 0);
        return;
    }
    bi_pointers at[BI_CHUNK_LIMIT];
    for (int32_t n = 0; n < count; n++)
        at[n] = pointers_of(in, &all[n], step);
    kernel->run_batch(step, at, (size_t)count, 0, step->rows);
}

/* Add the time since `started` to that of a step; return the time it is now. */
static int64_t add_time(const call *in, int32_t step, int64_t started)
{
    if (in->nanoseconds == NULL)
        return 0;
    int64_t finished = now();
    in->nanoseconds[step] += finished - started;
    return finished;
}

/* The first row of the map that a pool's rows from `begin` on read. */
static int32_t map_begin(const bi_step *pool, int32_t begin)
{
    int32_t y = begin * pool->stride_h - pool->pad_top;
    return y > 0 ? y : 0;
}

/* Behind the last row of the map that a pool's rows before `end` read. */
static int32_t map_end(const bi_step *pool, int32_t end)
{
    int32_t y = (end - 1) * pool->stride_h - pool->pad_top + pool->kernel_h;
    return end == 0 ? 0 : y < pool->in_h ? y : pool->in_h;
}

/* What the pool's rows [begin, end) read of the convolution's map, at its target: the first rows are
 * there already if they are the last of the band before, the others are made.  Returns where the whole
 * map would begin. */
static void *make_band(const bi_step *step, const bi_pointers *at, int32_t begin, int32_t end)
{
    const bi_step *pool = step + 1;
    size_t row_bytes = (size_t)step->out_w * (size_t)step->out_c * sizeof(float);
    int32_t first = map_begin(pool, begin), made = map_end(pool, begin);
    unsigned char *band = at->target;
    if (first < made) {
        int32_t before = map_begin(pool, begin - step->band);
        memmove(band, band + (size_t)(first - before) * row_bytes,
                (size_t)(made - first) * row_bytes);
    }
    bi_pointers here = *at;
    /* Kernels go from here to the rows of the band before they touch anything. */
    here.target = (void *)((uintptr_t)band - (uintptr_t)first * row_bytes);
    bi_kernel_at(step->kernel)->run(step, &here, made, map_end(pool, end));
    return here.target;
}

/* Rows from `begin` on, of the pool behind convolution number `i`, of both in turns: a band or, if
 * `most` is 0, all of them.  Returns the first that is left. */
static int32_t run_bands(const call *in, const sample *of, int32_t i, int32_t begin, int32_t most,
                         int64_t *time)
{
    const bi_step *step = &in->plan->steps[i], *pool = step + 1;
    const bi_kernel *kernel = bi_kernel_at(step->kernel), *last = bi_kernel_at(pool->kernel);
    bi_pointers at = pointers_of(in, of, step), at_pool = pointers_of(in, of, pool);
    if (begin == 0 && kernel->stage != NULL)
        kernel->stage(step, &at);
    do {
        int32_t end = pool->rows - begin > step->band ? begin + step->band : pool->rows;
        at_pool.source = make_band(step, &at, begin, end);
        *time = add_time(in, i, *time);
        last->run(pool, &at_pool, begin, end);
        *time = add_time(in, i + 1, *time);
        begin = end;
    } while (most == 0 && begin < pool->rows);
    return begin;
}

/* How many steps take turns from number `i` on: two, or one alone. */
static int32_t steps_from(const bi_plan *plan, int32_t i)
{
    return plan->steps[i].band > 0 ? 2 : 1;
}

/* Rows from `begin` on of the steps that take turns, those of the last one: at most about `most` or (0)
 * all; returns the first that is left, 0 if none is.  With a pool, rows of a step alone are shared out. */
static int32_t run_from(const call *in, const sample *of, int32_t i, bi_pool *pool, int32_t begin,
                        int32_t most, int64_t *time)
{
    const bi_step *step = &in->plan->steps[i];
    if (step->band > 0) {
        int32_t row = run_bands(in, of, i, begin, most, time);
        return row < step[1].rows ? row : 0;
    }
    int32_t row = run_step(in, of, step, pool, begin, most);
    *time = add_time(in, i, *time);
    return row < step->rows ? row : 0;
}

static int32_t chunk_of(const bi_plan *plan) { return plan->chunk > 1 ? plan->chunk : 1; }

/* The samples [first, end) in one arena: each on its own through the first steps, whose maps are large,
 * then, a chunk at a time, all of them together through the last, whose weights are. */
static void run_alone(const call *in, unsigned char *arena, int64_t first, int64_t end)
{
    const bi_plan *plan = in->plan;
    int64_t time = in->nanoseconds != NULL ? now() : 0;
    while (first < end) {
        sample all[BI_CHUNK_LIMIT];
        int32_t count = chunk_of(plan);
        count = end - first < count ? (int32_t)(end - first) : count;
        for (int32_t n = 0; n < count; n++, first++) {
            all[n] = (sample){arena, first, n};
            look(in, &all[n]);
            for (int32_t i = 0; i < plan->batch_from; i += steps_from(plan, i))
                run_from(in, &all[n], i, NULL, 0, 0, &time);
        }
        for (int32_t i = plan->batch_from; i < plan->n_steps; i++) {
            run_step_of_all(in, all, count, &plan->steps[i]);
            time = add_time(in, i, time);
        }
    }
}

/* All steps of one sample, whose rows are shared out. */
static void run_shared(const call *in, int64_t number)
{
    sample of = {in->arenas, number, 0};
    int64_t time = in->nanoseconds != NULL ? now() : 0;
    look(in, &of);
    for (int32_t i = 0; i < in->plan->n_steps; i += steps_from(in->plan, i))
        run_from(in, &of, i, in->pool, 0, 0, &time);
}

/* Whole samples for each thread, in an arena of its own: no thread waits between steps. */
static void run_samples(void *context, int32_t part, int32_t parts, int32_t thread)
{
    const call *in = context;
    run_alone(in, in->arenas + thread * in->plan->arena_bytes,
              bi_part_begin(in->samples, part, parts), bi_part_begin(in->samples, part + 1, parts));
}

/* As many parts as keep chunks whole, but a multiple of the threads, so that all end together. */
static int32_t parts_for(const call *in)
{
    int64_t threads = bi_pool_size(in->pool), chunk = chunk_of(in->plan);
    int64_t parts = ((in->samples + chunk - 1) / chunk + threads - 1) / threads * threads;
    parts = parts < in->samples ? parts : in->samples;
    return (int32_t)(parts < BI_PARTS_LIMIT ? parts : BI_PARTS_LIMIT);
}

int32_t bi_execute(const bi_plan *plan, unsigned char *arenas, void *const *externals,
                   int64_t samples, bi_pool *pool, int64_t *nanoseconds)
{
    int lost = 0;
    call in = {plan, arenas, externals, samples, pool, nanoseconds, &lost};
    if (!bi_pool_acquire(pool)) {
        run_alone(&in, arenas, 0, samples);
        return lost;
    }
    if (nanoseconds == NULL && samples >= bi_pool_size(pool))
        bi_pool_run(pool, run_samples, &in, parts_for(&in));
    else
        for (int64_t n = 0; n < samples; n++)
            run_shared(&in, n);
    bi_pool_release(pool);
    return lost;
}

int32_t bi_execute_part(const bi_plan *plan, unsigned char *arenas, void *const *externals,
                        bi_pool *pool, int64_t *nanoseconds, bi_progress *progress,
                        int64_t limit_ns)
{
    call in = {plan, arenas, externals, 1, pool, nanoseconds, &progress->lost};
    sample of = {arenas, 0, 0};
    int is_shared = bi_pool_acquire(pool);
    int64_t began = now(), time = began;
    if (progress->step == 0 && progress->row == 0)
        look(&in, &of);
    do {
        progress->row = run_from(&in, &of, progress->step, is_shared ? pool : NULL, progress->row,
                                 plan->steps[progress->step].rows_at_once, &time);
        if (progress->row == 0)
            progress->step += steps_from(plan, progress->step);
    } while (progress->step < plan->n_steps && now() - began < limit_ns);
    if (is_shared)
        bi_pool_release(pool);
    return progress->step == plan->n_steps;
}

int32_t bi_all_finite(const float *x, int64_t count)
{
    enum { LANES = 16 };    /* so that a compiler uses vectors, and additions do not wait */
    uint32_t found[LANES] = {0}, all = 0, bits;
    /* x - x is 0 for what is finite, and NaN for all else. */
    for (; count >= LANES; x += LANES, count -= LANES)
        for (int i = 0; i < LANES; i++) {
            float rest = x[i] - x[i];
            memcpy(&bits, &rest, sizeof bits);
            found[i] |= bits;
        }
    for (int64_t i = 0; i < count; i++) {
        float rest = x[i] - x[i];
        memcpy(&bits, &rest, sizeof bits);
        all |= bits;
    }
    for (int i = 0; i < LANES; i++)
        all |= found[i];
    return (all & UINT32_C(0x7fffffff)) == 0;    /* -0 is what some rounding modes make of it */
}
