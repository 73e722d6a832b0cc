/* check_threads.c -- the thread pool, and bi_execute() with it; without Python.
 *
 *   gcc -std=c11 -O1 -g -fsanitize=thread -Wall -Wextra -Werror -ffp-contract=off -pthread -Icsrc \
 *       $(find csrc -name '*.c') tests/c/check_threads.c -lm -o /tmp/check_threads &&
 *       /tmp/check_threads --no-fork
 *
 * ThreadSanitizer knows no threads that are started in a forked child, hence --no-fork; with
 * -fsanitize=address,undefined everything is run.  A hang ends by alarm().
 */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bitinfer.h"
#include "threads.h"

enum { SECONDS = 240, THREADS_MAX = 5, CALLERS = 4 };

static long failed, passed;

static void check(int right, const char *what)
{
    right ? passed++ : failed++;
    if (!right)
        printf("FAILED: %s\n", what);
}

static void *must(void *pointer)
{
    if (pointer == NULL) {
        perror("check_threads");
        exit(2);
    }
    return pointer;
}

/* --- pieces of work ------------------------------------------------------------------------- */

typedef struct {
    int times[BI_PARTS_LIMIT];    /* how often each part was computed; plain ints, on purpose */
    int parts;
    atomic_int is_in[THREADS_MAX];
    atomic_int wrong;
} record;

static void count_part(void *context, int32_t part, int32_t parts, int32_t thread)
{
    record *r = context;
    if (parts != r->parts || part < 0 || part >= parts || thread < 0 || thread >= THREADS_MAX) {
        atomic_fetch_add(&r->wrong, 1);
        return;
    }
    if (atomic_exchange(&r->is_in[thread], 1) != 0)    /* two threads bear one number */
        atomic_fetch_add(&r->wrong, 1);
    r->times[part]++;
    atomic_store(&r->is_in[thread], 0);
}

static int every_part_once(record *r)
{
    int right = atomic_load(&r->wrong) == 0;
    for (int i = 0; i < BI_PARTS_LIMIT; i++)
        right &= r->times[i] == (i < r->parts);
    return right;
}

static int count_parts(bi_pool *pool, record *r, int parts)
{
    memset(r, 0, sizeof *r);
    r->parts = parts;
    bi_pool_run(pool, count_part, r, parts);
    return every_part_once(r);
}

static void check_pool(int32_t threads)
{
    static const int PARTS[] = {1, 2, 3, 7, 64, BI_PARTS_LIMIT};
    static record r;
    bi_pool *pool = must(bi_pool_new(threads));
    check(bi_pool_size(pool) == threads, "size of the pool");
    int right = 1;
    for (int round = 0; round < 300; round++) {
        right &= bi_pool_acquire(pool);
        for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
            right &= round % 10 != 0 && PARTS[i] > 64 ? 1 : count_parts(pool, &r, PARTS[i]);
        check(!bi_pool_acquire(pool), "a pool that is taken is given to another");
        bi_pool_release(pool);
        if (round % 60 == 0)
            usleep(3000);    /* the workers fall asleep */
    }
    check(right, "every part once");
    bi_pool_free(pool);
}

static void check_freeing(void)
{
    static record r;
    for (int i = 0; i < 200; i++) {
        bi_pool *pool = must(bi_pool_new(1 + i % THREADS_MAX));
        if (i % 3 != 0) {
            check(bi_pool_acquire(pool) && count_parts(pool, &r, 9), "a new pool");
            bi_pool_release(pool);
        }
        if (i % 20 == 1)
            usleep(2000);
        bi_pool_free(pool);
    }
    bi_pool_free(NULL);
    check(!bi_pool_acquire(NULL), "no pool is given");
}

/* --- a network ------------------------------------------------------------------------------ */

enum { HEIGHT = 19, WIDTH = 7, CHANNELS = 70, OUTPUTS = 9, SAMPLES = 7 };

typedef struct {
    bi_step steps[2];
    bi_plan plan;
    int64_t strides[2];
    unsigned char *weight;
    float *x;
} network;

static int is_negative(uint32_t i) { return (i * 2654435761u >> 13) & 1; }

static size_t output_floats(void) { return (size_t)HEIGHT * WIDTH * OUTPUTS; }

static void make_network(network *n)
{
    memset(n, 0, sizeof *n);
    const size_t inputs = (size_t)HEIGHT * WIDTH * CHANNELS, words = 2;
    for (int i = 0; i < 2; i++)
        n->steps[i] = (bi_step){
            .rows = HEIGHT,
            .parts = 5,
            .in_h = HEIGHT,
            .in_w = WIDTH,
            .in_c = CHANNELS,
            .out_h = HEIGHT,
            .out_w = WIDTH,
            .out_c = i == 0 ? CHANNELS : OUTPUTS,
            .kernel_h = i == 0 ? 1 : 3,
            .kernel_w = i == 0 ? 1 : 3,
            .stride_h = 1,
            .stride_w = 1,
            .pad_top = i,
            .pad_left = i,
            .dilation_h = 1,
            .dilation_w = 1,
            .groups = 1,
        };
    bi_step *pack = &n->steps[0], *convolve = &n->steps[1];
    pack->kernel = bi_kernel_find("pack_signs", NULL, NULL, pack);
    convolve->kernel = bi_kernel_find("bconv2d", NULL, NULL, convolve);
    uint64_t canonical[OUTPUTS * 9 * 2] = {0};
    for (uint32_t i = 0; i < OUTPUTS * 9 * CHANNELS; i++)
        if (is_negative(i))
            canonical[i / CHANNELS * 2 + i % CHANNELS / 64] |= UINT64_C(1) << i % CHANNELS % 64;
    size_t size = bi_weight_bytes(convolve);
    n->weight = must(
        aligned_alloc(64, ((size > sizeof canonical ? size : sizeof canonical) + 63) / 64 * 64));
    memcpy(n->weight, canonical, sizeof canonical);
    if (size > 0)
        bi_pack_weight(convolve, canonical, n->weight);
    convolve->weight = n->weight;
    int64_t bits = (int64_t)(HEIGHT * WIDTH * words * 8 + 63) / 64 * 64;
    pack->source = -1;
    pack->target = convolve->source = 0;
    pack->scratch = convolve->scratch = bits;
    convolve->target = -2;
    n->strides[0] = (int64_t)(inputs * sizeof(float));
    n->strides[1] = (int64_t)(output_floats() * sizeof(float));
    int64_t scratch = (int64_t)(bi_scratch_bytes(convolve) + 63) / 64 * 64;
    n->plan = (bi_plan){
        .steps = n->steps, .n_steps = 2, .arena_bytes = bits + scratch, .stride_bytes = n->strides};
    n->x = must(malloc(SAMPLES * inputs * sizeof(float)));
    for (size_t i = 0; i < SAMPLES * inputs; i++)
        n->x[i] = is_negative((uint32_t)i + 77) ? -1.0f : 1.0f;
}

static void free_network(network *n)
{
    free(n->weight);
    free(n->x);
}

typedef struct {
    unsigned char *arenas;
    float *y;
} memory;

static size_t arenas_size(const network *n) { return (size_t)n->plan.arena_bytes * THREADS_MAX; }

static memory new_memory(const network *n)
{
    return (memory){must(aligned_alloc(64, arenas_size(n))),
                    must(malloc(SAMPLES * output_floats() * sizeof(float)))};
}

static void free_memory(memory m)
{
    free(m.arenas);
    free(m.y);
}

/* Run some samples, and say whether the outputs are those of plain loops.  Allocates nothing: a
 * sanitizer's allocator may be locked for ever in a child of fork(). */
static int run_in(memory m, const network *n, int64_t samples, bi_pool *pool, int64_t *nanoseconds)
{
    float *y = m.y;
    memset(m.arenas, 0xA5, arenas_size(n));
    memset(y, 0xA5, SAMPLES * output_floats() * sizeof(float));
    void *externals[] = {n->x, y};
    bi_execute(&n->plan, m.arenas, externals, samples, pool, nanoseconds);
    int right = 1;
    for (int64_t s = 0; s < samples; s++)
        for (int pixel = 0; pixel < HEIGHT * WIDTH; pixel++)
            for (int o = 0; o < OUTPUTS; o += 4) {
                float dot = 0;
                for (int tap = 0; tap < 9; tap++) {
                    int row = pixel / WIDTH + tap / 3 - 1, column = pixel % WIDTH + tap % 3 - 1;
                    if (row < 0 || row >= HEIGHT || column < 0 || column >= WIDTH)
                        continue;
                    const float *x =
                        n->x +
                        (((size_t)s * HEIGHT + (size_t)row) * WIDTH + (size_t)column) * CHANNELS;
                    for (int c = 0; c < CHANNELS; c++)
                        dot += is_negative((uint32_t)((o * 9 + tap) * CHANNELS + c)) ? -x[c] : x[c];
                }
                right &= y[(size_t)s * output_floats() + (size_t)(pixel * OUTPUTS + o)] == dot;
            }
    return right;
}

static int run_network(const network *n, int64_t samples, bi_pool *pool, int64_t *nanoseconds)
{
    memory m = new_memory(n);
    int right = run_in(m, n, samples, pool, nanoseconds);
    free_memory(m);
    return right;
}

static void check_execute(void)
{
    network n;
    make_network(&n);
    check(run_network(&n, 3, NULL, NULL), "without a pool");
    for (int32_t threads = 1; threads <= 3; threads++) {
        bi_pool *pool = must(bi_pool_new(threads));
        for (int64_t samples = 0; samples <= SAMPLES; samples += 1 + samples / 3)
            for (int32_t parts = 0; parts < 24; parts = 2 * parts + 1) {
                n.steps[0].parts = n.steps[1].parts = parts;
                check(run_network(&n, samples, pool, NULL), "with a pool");
                int64_t took[2] = {0, 0};
                check(run_network(&n, samples, pool, took), "with a pool, timed");
                check((samples > 0) == (took[0] > 0 && took[1] > 0), "times");
            }
        bi_pool_free(pool);
    }
    free_network(&n);
    double hertz = bi_clock_hz();
    check(hertz > 1e7 && hertz < 1e10, "the clock");
}

/* --- several callers, and forks ------------------------------------------------------------- */

typedef struct {
    const network *n;
    bi_pool *pool;
    atomic_int *stop;
    int rounds, wrong;
    memory own;
} caller;

static void *keep_calling(void *argument)
{
    caller *self = argument;
    for (int i = 0; self->stop == NULL ? i < self->rounds : !atomic_load(self->stop); i++)
        self->wrong += !run_in(self->own, self->n, 1 + i % 3, self->pool, NULL);
    return NULL;
}

static void check_callers(void)
{
    network n;
    make_network(&n);
    bi_pool *pool = must(bi_pool_new(3));
    pthread_t threads[CALLERS];
    caller callers[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){&n, pool, NULL, 20, 0, new_memory(&n)};
        if (pthread_create(&threads[i], NULL, keep_calling, &callers[i]) != 0)
            exit(2);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        check(callers[i].wrong == 0, "several callers of one pool");
        free_memory(callers[i].own);
    }
    bi_pool_free(pool);
    free_network(&n);
}

/* Whether this process has so many threads; yes where the system does not tell. */
static int has_threads(int wanted)
{
    char line[256];
    int threads = wanted;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        sscanf(line, "Threads: %d", &threads);
    return threads == wanted;
}

/* Fork while another thread keeps the pool busy; the child uses the pool and forks again. */
static void check_forks(int forks)
{
    network n;
    make_network(&n);
    bi_pool *pool = must(bi_pool_new(3));
    atomic_int stop = 0;
    caller other = {&n, pool, &stop, 0, 0, new_memory(&n)};
    memory own = new_memory(&n);
    record *parts = must(malloc(sizeof *parts));
    pthread_t thread;
    if (pthread_create(&thread, NULL, keep_calling, &other) != 0)
        exit(2);
    for (int i = 0; i < forks; i++) {
        run_in(own, &n, 1, pool, NULL);
        pid_t child = fork();
        if (child == 0) {
            alarm(30);
            int right = bi_pool_acquire(pool) && count_parts(pool, parts, 20);
            bi_pool_release(pool);
            right &= run_in(own, &n, 1, pool, NULL) && has_threads(3);
            pid_t grandchild = i % 4 == 0 ? fork() : -1;
            if (grandchild == 0) {
                alarm(30);
                _exit(run_in(own, &n, 3, pool, NULL) ? 0 : 1);
            }
            int status = 0;
            if (grandchild > 0)
                waitpid(grandchild, &status, 0);
            _exit(right && status == 0 ? 0 : 1);
        }
        int status = -1;
        waitpid(child, &status, 0);
        check(child > 0 && status == 0, "a forked child");
    }
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    check(other.wrong == 0, "a caller beside forks");
    free_memory(other.own);
    free_memory(own);
    free(parts);
    bi_pool_free(pool);
    free_network(&n);
}

int main(int argc, char **argv)
{
    alarm(SECONDS);
    for (int32_t threads = 1; threads <= THREADS_MAX; threads++)
        check_pool(threads);
    check_freeing();
    check_execute();
    check_callers();
    if (argc < 2 || strcmp(argv[1], "--no-fork") != 0)
        check_forks(40);
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
