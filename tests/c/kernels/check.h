/* check.h -- what the files of this test share; check_kernels.c says what it is. */
#ifndef BITINFER_CHECK_H
#define BITINFER_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitinfer.h"
#include "kernels/kernel.h"
#include "kernels/table.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

extern long passed, failed;
extern int32_t random_cases;    /* of every binary kernel */

/* Random numbers; a random float lies in [-2, 2), or is now and then a special one. */
extern uint64_t random_state;
uint64_t random_bits(void);
int32_t random_int(int32_t low, int32_t high);
float random_float(void);

/* Buffers of the exact size, in the current place; they hold junk at first. */
typedef enum { ON_HEAP, BEFORE_GUARD, AFTER_GUARD, PLACES } place;

typedef struct {
    unsigned char *data;
    unsigned char *base;
    size_t mapped;    /* 0 on the heap */
} buffer;

extern place current_place;
void *must(void *pointer);
buffer new_buffer(size_t size, size_t alignment);
buffer new_floats(size_t count);
void free_buffer(buffer b);

/* Signs as chars of -1 and +1, and rows of them as words. */
typedef enum { RANDOM, ALL_NEGATIVE, ALL_POSITIVE } fill;

signed char *new_signs(size_t count, fill how);
buffer pack(const signed char *signs, size_t rows, int32_t length);

/* The kernel that is being tested. */
typedef struct {
    int32_t kernel;
    const char *name;    /* operation */
    long cases;
} subject;

void count_case(subject *k, const bi_step *s, const char *wrong);

/* Whether the kernel of a step takes it; other steps are no cases. */
int is_taken(const bi_step *s);

/* Numbers of outputs at which the kernel's loops change: once to four times its block, -1, +0 and +1. */
enum { BLOCK_SIZES = 12 };
void block_sizes(const subject *k, int32_t sizes[BLOCK_SIZES]);

size_t map_size(int32_t h, int32_t w, int32_t c);
bi_step plain_step(const subject *k, int32_t h, int32_t w, int32_t c);
buffer bind_weight(bi_step *s, const void *canonical);

/* Windows over a map. */
typedef struct {
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t top, bottom, left, right;
} window;

enum { WINDOW_COUNT = 14, CHANNEL_COUNT = 11, OUTPUT_COUNT = 13 };
extern const window WINDOWS[WINDOW_COUNT];
extern const int32_t CHANNELS[CHANNEL_COUNT], OUTPUTS[OUTPUT_COUNT];

window random_window(void);
bi_step windowed(const subject *k, int32_t h, int32_t w, int32_t c, const window *v);
bi_step random_pool(const subject *k, int32_t channels);
int on_map(const bi_step *s, int32_t y, int32_t x);
int32_t tap_y(const bi_step *s, int32_t oy, int32_t ky);
int32_t tap_x(const bi_step *s, int32_t ox, int32_t kx);

/* What a step reads, beside its weight. */
typedef struct {
    const void *source;
    const float *beta, *residual;
} inputs;

/* What it writes: rows, of which the last may be shorter. */
typedef struct {
    unsigned char *data;
    size_t bytes, row_bytes;
} output_rows;

/* Run the step in two parts, the last rows first; return what is wrong, or NULL.  `signs` are those
 * beside the target, if there are any. */
const char *run_in_parts(const bi_step *s, const inputs *in, output_rows target, output_rows signs);

const char *compare_floats(const float *got, const float *wanted, size_t count, double slack);
const char *compare_signs(const uint64_t *got, const signed char *signs, size_t pixels,
                          int32_t length);

/* Run a step from one source to floats, or to signs, and compare; relative error `slack`. */
void check_floats(subject *k, const bi_step *s, const void *source, const float *wanted,
                  size_t row_floats, double slack);
void check_signs(subject *k, const bi_step *s, const void *source, const signed char *signs,
                 size_t pixels, int32_t length);

/* The checks of an operation's kernels. */
void check_bconv2d(subject *k);
void check_bdense(subject *k);
void check_pack_signs(subject *k);
void check_beta_map(subject *k);
void check_affine(subject *k);
void check_activate(subject *k);
void check_pairwise(subject *k);
void check_quantize(subject *k);
void check_copy_channels(subject *k);
void check_shuffle_channels(subject *k);
void check_pad2d(subject *k);
void check_global_pool2d(subject *k);
void check_normalize(subject *k);
void check_avg_pool2d(subject *k);
void check_max_pool2d(subject *k);
void check_flatten(subject *k);
void check_softmax(subject *k);

#endif
