/* threads.h -- the thread pool as the library itself sees it. */
#ifndef BITINFER_THREADS_H
#define BITINFER_THREADS_H

#include "bitinfer.h"

/* Computes part `part` of `parts` of some work.  `thread` is 0 for the thread that called, else the
 * number of a worker: no two run with the same number at the same time. */
typedef void (*bi_work)(void *context, int32_t part, int32_t parts, int32_t thread);

/* Take the pool for a call.  False if another call has it, or if there is none (NULL): the caller
 * then works alone, and must not release the pool. */
int bi_pool_acquire(bi_pool *pool);
void bi_pool_release(bi_pool *pool);

/* How many threads work in a pool, the caller among them. */
int32_t bi_pool_size(const bi_pool *pool);

/* Run the parts [0, parts) of the work, each once, on the threads of a pool that was acquired;
 * 1 <= parts <= BI_PARTS_LIMIT.  Returns when all are done, and what they wrote can be read. */
void bi_pool_run(bi_pool *pool, bi_work work, void *context, int32_t parts);

/* Where part `part` of `parts` of `count` things begins; part `parts` begins at the end. */
static inline int64_t bi_part_begin(int64_t count, int32_t part, int32_t parts)
{
    return count * part / parts;
}

#endif
