/* bitinfer.h -- the C interface.  The part between the cdef marks is what cffi reads.
 *
 * A network is a list of steps over an arena.  bi_execute() walks the list; it allocates nothing
 * and touches no Python object, so the caller may run it without the GIL, and from many threads at
 * once as long as each call has its own arenas and its own outputs.  Without a pool it takes no
 * lock; with one, no lock that another call may hold.
 *
 * The steps come from the binder, which checked every size.  Nothing here checks them again.
 */
#ifndef BITINFER_H
#define BITINFER_H

#include <stddef.h>
#include <stdint.h>

/* cdef-begin */

/* Where a value lies: an offset in the arena if >= 0, else external number -1 - place. */
typedef int64_t bi_place;

/* One step.  Every operation's contract says which of these fields it reads: the header of its name
 * in kernels/, for dense that of conv2d, for operations without one the top of the .inc or .c file.
 * Maps are NHWC without N: pixel (y, x) of a float map starts at float (y * in_w + x) * in_c, of a
 * bit map at word (y * in_w + x) * words(in_c). */
/* clang-format off */
typedef struct bi_step {
    int32_t kernel;                /* index in the kernel list */
    int32_t rows;                  /* units of work: the kernel runs on a range of them */
    int32_t parts;                 /* into how many ranges a pool's threads share the rows out, at
                                    * most BI_PARTS_LIMIT; 0 or 1: one thread does them all */
    int32_t rows_at_once;          /* bi_execute_part() looks at the clock after so many; 0: after all */
    int32_t band;                  /* > 0, of a conv2d to floats: it takes turns with the next step, a pool
                                    * of its target, of which so many rows are done at a time; target
                                    * and source are a buffer for what these read of the map */
    bi_place source, beta, target, signs, scratch;
    bi_place residual;             /* add, multiply: the other operand */
    int32_t in_h, in_w, in_c;
    int32_t out_h, out_w, out_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left;     /* bottom and right follow from out_h and out_w */
    int32_t dilation_h, dilation_w;
    int32_t groups;
    int32_t pad_value;             /* what a padded tap of a binary convolution holds: -1, 0, +1 */
    int32_t flags;                 /* BI_FLAG_* */
    int32_t weight_type;           /* BI_WEIGHT_*, of a convolution or dense layer that is not binary */
    const void *weight;            /* as the kernel's pack_weight() left it */
    const float *table;            /* conv2d: [256][in_c], the value of every pixel byte, or NULL */
    const float *offset;           /* conv2d of integers: (in_c), what is subtracted, or NULL */
    const float *alpha;            /* (out_c), or NULL for 1 */
    const float *bias;             /* (out_c), or NULL for none; pack_signs: the thresholds */
    int32_t has_beta, has_residual, has_signs;
    int32_t activation;            /* BI_ACTIVATION_* */
    const float *floor;            /* (out_c), or NULL: the sums are no less than this */
    const float *shift_in;         /* (out_c), of RPRELU */
    const float *slope;            /* (out_c), of PRELU and RPRELU */
    const float *shift_out;        /* (out_c), of RPRELU */
    float low, high;               /* of CLIP; low: the value of pad2d, the scale of quantize */
    const int32_t *threshold;      /* (out_c): integer sums are compared, the target is packed signs */
    const float *sign_threshold;   /* (out_c): the float result is compared: has_signs says whether
                                    * the packed signs are the target, or in `signs` beside it */
    const uint8_t *flip;           /* (out_c), 0 or 1; never NULL with either threshold */
    int32_t channel_from, channel_to, channel_count;    /* copy_channels; the first pack_signs, too */
    int32_t target_gap, residual_gap;   /* bconv2d: floats from a pixel's last to the next pixel's
                                         * first, where the map is a part of the channels of another */
} bi_step;

/* Switches over these two have no default, so that what a kernel forgets does not compile; what is
 * none of these gives NaN. */
typedef enum bi_activation {
    BI_ACTIVATION_NONE,
    BI_ACTIVATION_RELU,            /* y > 0 ? y : 0 */
    BI_ACTIVATION_PRELU,           /* y < 0 ? y * slope : y */
    BI_ACTIVATION_CLIP,            /* between low and high */
    BI_ACTIVATION_RPRELU,          /* PRELU of y + shift_in, plus shift_out */
    BI_ACTIVATION_SIGMOID          /* 1 / (1 + exp(-y)), in double precision */
} bi_activation;

typedef enum bi_weight_type {
    BI_WEIGHT_F32,
    BI_WEIGHT_I16,
    BI_WEIGHT_I8,
    BI_WEIGHT_BITS                 /* signs, packed along the input channels of a group */
} bi_weight_type;

#define BI_FLAG_BITS 1              /* the map holds packed signs */
#define BI_FLAG_COUNT_PADDING 2     /* average pool: the divisor is the whole window */
#define BI_FLAG_CHANNELS_FIRST 4    /* flatten: index (c * H + y) * W + x */
#define BI_FLAG_U8 8                /* the source is uint8 */
#define BI_FLAG_I8 16               /* the source is int8 */
#define BI_FLAG_VECTOR 32           /* add, multiply: the other operand is (in_c), for every pixel */
#define BI_FLAG_MAXIMUM 64          /* global pool: maximum instead of mean */

#define BI_PARTS_LIMIT 4095

typedef struct bi_plan {
    const bi_step *steps;
    int32_t n_steps;
    int64_t arena_bytes;           /* a multiple of 64 */
    const int64_t *stride_bytes;   /* of each external, from one sample to the next */
    int32_t is_float;              /* whether the input, external number 0, is f32 */
    int64_t shared_bytes;          /* of the arena; behind them is a part for each sample of a chunk */
    int64_t sample_bytes;          /* of such a part; places from shared_bytes on lie in it */
    int32_t chunk;                 /* samples that go through the steps from batch_from on together,
                                    * at most BI_CHUNK_LIMIT; 0 or 1: none */
    int32_t batch_from;            /* the first step whose values all lie in those parts */
} bi_plan;

/* clang-format on */

#define BI_CHUNK_LIMIT 16

/* Threads that bi_execute() may use beside its own: `threads` in all, at least 1.  They are started
 * by the first work that is shared out, sleep when there is none, and end with the pool.  A pool
 * serves one call at a time; a call that finds it taken works alone.  The child of a fork starts
 * threads of its own.  NULL: no memory. */
typedef struct bi_pool bi_pool;
bi_pool *bi_pool_new(int32_t threads);
void bi_pool_free(bi_pool *pool);    /* while no call uses it */

/* Run the steps for each of `samples` samples.  External i of sample n starts at
 * externals[i] + n * stride_bytes[i].  `arenas` holds, one after the other, as many arenas as the
 * pool has threads (1 without a pool), on a multiple of 64.  The results do not depend on the pool.
 *
 * A pool (or NULL) shares samples out where there are enough for all threads, else the rows of the
 * steps.  `nanoseconds` (or NULL) has an element for each step, to which its time is added; samples
 * are then not shared out.
 *
 * Returns whether the input is f32 and has a NaN or infinity in any sample. */
int32_t bi_execute(const bi_plan *plan, unsigned char *arenas, void *const *externals,
                   int64_t samples, bi_pool *pool, int64_t *nanoseconds);

/* How far one sample has come: steps done, and rows of the next one.  All 0 at the beginning. */
typedef struct bi_progress {
    int32_t step, row;
    int lost; /* what bi_execute() returns, as far as is known */
} bi_progress;

/* Run the steps of one sample from `progress` on, and note there how far they have come.  Returns 1 at
 * the end, or 0 as soon as `limit_ns` have gone by, but not before something is done: after a step, a step's rows_at_once or a band: so a caller
 * can look for an interrupt meanwhile.  Between the parts the arena is not to be touched; all other
 * arguments are as of bi_execute(). */
int32_t bi_execute_part(const bi_plan *plan, unsigned char *arenas, void *const *externals,
                        bi_pool *pool, int64_t *nanoseconds, bi_progress *progress,
                        int64_t limit_ns);

/* Whether there is neither NaN nor infinity among `count` numbers. */
int32_t bi_all_finite(const float *x, int64_t count);

/* Cycles a second of the core that this runs on, by a measurement of under a millisecond. */
double bi_clock_hz(void);

/* The kernel list, best first within an operation; see kernels/kernels.inc. */
int32_t bi_kernel_count(void);
const char *bi_kernel_operation(int32_t kernel);
const char *bi_kernel_method(int32_t kernel);
const char *bi_kernel_isa(int32_t kernel);
int32_t bi_kernel_block(int32_t kernel);    /* see bi_kernel in kernels/kernel.h */
int32_t bi_kernel_runs_here(int32_t kernel);

/* The kernel that a step gets: the first in the list of this operation (and method, unless that is
 * NULL) that this CPU runs, that is no later than `isa` (NULL: any) in the order of bi_isa_name(), that
 * is not passed over for a richer instruction set (bi_kernel.not_with), and that takes the step; -1 if
 * there is none.  All of the step must be filled in but its kernel, weight and places. */
int32_t bi_kernel_find(const char *operation, const char *method, const char *isa,
                       const bi_step *step);

/* The kernel that bi_kernel_find() gives on a CPU with the instruction sets up to number `isa`, which
 * this CPU need not be; -1 if there is none. */
int32_t bi_kernel_on(const char *operation, int32_t isa, const bi_step *step);

/* Whether a kernel for neon takes a step, on whatever CPU this is: 1, then its weight and scratch need
 * that many bytes (0: none of its own); 0; or -1 if there is no such kernel. */
int32_t bi_neon_needs(const char *operation, const char *method, const bi_step *step,
                      int64_t *weight_bytes, int64_t *scratch_bytes);

/* Those that bi_kernel_find() asks, one after the other: the first (`after` -1), or the next after
 * kernel `after`; -1 past the end.  Left out are those that get no step, because one before them takes
 * every step or (bi_kernel.takes is the same function) the same ones. */
int32_t bi_kernel_next(const char *operation, const char *method, const char *isa, int32_t after);

/* Instruction sets, from the poorest to the richest; NULL past the end. */
const char *bi_isa_name(int32_t index);
int32_t bi_isa_runs_here(int32_t index);

/* Bytes of the re-laid weight, the re-laying itself (canonical: kernels' contracts), and bytes of
 * scratch in the arena.  A size of 0 means that the kernel takes the canonical weight, or needs
 * no scratch. */
size_t bi_weight_bytes(const bi_step *step);
void bi_pack_weight(const bi_step *step, const void *canonical, void *packed);
size_t bi_scratch_bytes(const bi_step *step);

/* Compiler that built this library, for reports. */
const char *bi_compiler(void);

/* cdef-end */

#endif
