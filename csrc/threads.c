/* threads.c -- a small thread pool that survives fork().
 *
 * The caller works with the workers: it publishes how many parts a piece of work has, all threads
 * claim one part after the other, and it waits only for parts that a worker has begun.  A worker
 * that sleeps, or that the system has taken off its core, holds nobody up.
 *
 * One word, the ticket, says which piece of work is open, how many parts it has and which is next.
 * A part is claimed by compare-and-swap on that word, so a claim cannot go to another piece of work
 * than the one that was read.  Idle workers watch the ticket for a while and then sleep.
 *
 * A child of fork() has none of the workers, and finds the pool in whatever state it was.  Each
 * pool remembers in which generation of processes it was last taken; the first call in the child
 * sees that this is another one, and begins anew: with no workers, until it needs them.  A call
 * never waits for a lock that another call may hold over a fork.
 */
#define _POSIX_C_SOURCE 200809L
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    SPINS_BEFORE_SLEEP = 4000,    /* of an idle worker: some tens of microseconds */
    SPINS_BEFORE_YIELD = 4000,    /* of a caller that waits for the last parts */
    PART_BITS = 12,
};

typedef struct {
    bi_pool *pool;
    pthread_t thread;
    int32_t number;
} worker;

struct bi_pool {
    int32_t threads;              /* as asked for, the caller among them */
    int32_t started;              /* workers that exist */
    atomic_ullong owner;          /* generation * 2, plus 1 while a call has the pool */
    atomic_ullong ticket;         /* epoch, parts, next part: see make_ticket() */
    atomic_int done;              /* parts of this epoch that are finished */
    atomic_int sleeping;          /* workers that need to be woken */
    atomic_int stop;
    bi_work work;                 /* these two are written before the ticket is published */
    void *context;
    pthread_mutex_t mutex;        /* for sleeping and waking alone */
    pthread_cond_t wake;
    worker workers[];
};

/* --- generations of processes --------------------------------------------------------------- */

static atomic_ullong generation = 1;

static void count_generation(void) { atomic_fetch_add(&generation, 1); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, count_generation); }

/* --- tickets -------------------------------------------------------------------------------- */

static unsigned long long make_ticket(unsigned long long epoch, int32_t parts)
{
    return (epoch << 2 * PART_BITS) | ((unsigned long long)parts << PART_BITS);
}

static unsigned long long epoch_of(unsigned long long ticket) { return ticket >> 2 * PART_BITS; }

static int32_t parts_of(unsigned long long ticket)
{
    return (int32_t)(ticket >> PART_BITS) & BI_PARTS_LIMIT;
}

static int32_t next_of(unsigned long long ticket) { return (int32_t)ticket & BI_PARTS_LIMIT; }

static int is_open(unsigned long long ticket) { return next_of(ticket) < parts_of(ticket); }

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Claim parts and compute them, until there is none left. */
static void work_on(bi_pool *pool, int32_t thread)
{
    unsigned long long ticket = atomic_load(&pool->ticket);
    while (is_open(ticket)) {
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            continue;
        /* The claimed part keeps this epoch open, so work and context are of this epoch. */
        pool->work(pool->context, next_of(ticket), parts_of(ticket), thread);
        atomic_fetch_add(&pool->done, 1);
        ticket = atomic_load(&pool->ticket);
    }
}

/* --- workers -------------------------------------------------------------------------------- */

static int has_something_to_do(bi_pool *pool)
{
    return is_open(atomic_load(&pool->ticket)) || atomic_load(&pool->stop);
}

static void sleep_until_woken(bi_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    /* Whoever publishes looks at `sleeping` after the ticket, and this looks at the ticket after
     * `sleeping`: one of the two sees the other. */
    while (!has_something_to_do(pool))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void wake_sleepers(bi_pool *pool)
{
    if (atomic_load(&pool->sleeping) == 0)
        return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    bi_pool *pool = self->pool;
    int32_t spins = 0;
    while (!atomic_load(&pool->stop)) {
        if (is_open(atomic_load(&pool->ticket))) {
            work_on(pool, self->number);
            spins = 0;
        } else if (++spins < SPINS_BEFORE_SLEEP) {
            relax();
        } else {
            sleep_until_woken(pool);
            spins = 0;
        }
    }
    return NULL;
}

/* Signals are for the threads of the program: workers take none. */
static void start_workers(bi_pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; pool->started < pool->threads - 1; pool->started++) {
        worker *new = &pool->workers[pool->started];
        new->pool = pool;
        new->number = pool->started + 1;
        if (pthread_create(&new->thread, NULL, worker_main, new) != 0) {
            pool->threads = pool->started + 1;    /* the system has no more: go on with these */
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* --- the pool ------------------------------------------------------------------------------- */

static void begin_anew(bi_pool *pool)
{
    pool->started = 0;
    atomic_store(&pool->ticket, 0);
    atomic_store(&pool->done, 0);
    atomic_store(&pool->sleeping, 0);
    atomic_store(&pool->stop, 0);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
}

bi_pool *bi_pool_new(int32_t threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    bi_pool *pool = calloc(1, sizeof *pool + (size_t)(threads - 1) * sizeof pool->workers[0]);
    if (pool == NULL)
        return NULL;
    pool->threads = threads;
    atomic_store(&pool->owner, atomic_load(&generation) * 2);
    begin_anew(pool);
    return pool;
}

void bi_pool_free(bi_pool *pool)
{
    if (pool == NULL)
        return;
    if (atomic_load(&pool->owner) / 2 == atomic_load(&generation)) {
        atomic_store(&pool->stop, 1);
        wake_sleepers(pool);
        for (int32_t i = 0; i < pool->started; i++)
            pthread_join(pool->workers[i].thread, NULL);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->mutex);
    }
    free(pool);
}

int bi_pool_acquire(bi_pool *pool)
{
    if (pool == NULL)
        return 0;
    unsigned long long now = atomic_load(&generation), before = atomic_load(&pool->owner);
    if (before == now * 2 + 1 ||
        !atomic_compare_exchange_strong(&pool->owner, &before, now * 2 + 1))
        return 0;
    if (before / 2 != now)
        begin_anew(pool);
    return 1;
}

void bi_pool_release(bi_pool *pool) { atomic_fetch_sub(&pool->owner, 1); }

int32_t bi_pool_size(const bi_pool *pool) { return pool->threads; }

void bi_pool_run(bi_pool *pool, bi_work work, void *context, int32_t parts)
{
    if (pool->started < pool->threads - 1)
        start_workers(pool);
    pool->work = work;
    pool->context = context;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, make_ticket(epoch_of(atomic_load(&pool->ticket)) + 1, parts));
    wake_sleepers(pool);
    work_on(pool, 0);
    for (int32_t spins = 0; atomic_load(&pool->done) < parts; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            relax();
        else
            sched_yield();
    }
}
