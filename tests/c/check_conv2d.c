/* check_conv2d.c -- float and integer convolutions and dense layers of every kernel in the list
 * against plain loops in double precision and 64-bit integers; without Python.
 *
 *   gcc -std=c11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover -Wall -Wextra -Werror \
 *       -ffp-contract=off -Icsrc $(find csrc -name '*.c') tests/c/check_conv2d.c -lm \
 *       -o /tmp/check_conv2d && /tmp/check_conv2d
 *
 * Integer layers must be equal.  Floats may be off by what float32 loses in K additions in any order;
 * packed signs must be those of the floats that the same kernel gives.  All buffers are of the exact
 * size and lie right before or behind an inaccessible page, which sees assembly too; outputs hold
 * junk before each run.  A step run in parts must give what it gives in one piece, bit for bit.
 *
 * `check_conv2d conv2d tiles avx2` checks the one kernel of that name; nothing, if this CPU lacks it.
 *
 * Prints a line for each kernel; the last line is "N passed, N failed".
 */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bitinfer.h"
#include "kernels/kernel.h"
#include "kernels/table.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ROUNDING (1.0 / (1 << 24))    /* of one operation, relative */

enum { JUNK = 0xA5, MOST_BUFFERS = 24 };

static long passed, failed;

/* --- random numbers and buffers ------------------------------------------------------------- */

static uint64_t random_state = 88172645463325252u;

static int32_t random_int(int32_t low, int32_t high)    /* xorshift64* (Vigna 2016) */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    uint64_t bits = random_state * UINT64_C(2685821657736338717);
    return low + (int32_t)((bits >> 33) % (uint64_t)(high - low + 1));
}

static float random_float(void)    /* in [-2, 2) */
{
    return (float)random_int(-(1 << 20), (1 << 20) - 1) / (float)(1 << 19);
}

/* Mapped pages of the current case; all go together. */
static struct {
    unsigned char *base;
    size_t bytes;
} buffers[MOST_BUFFERS];
static size_t buffer_count;
static int at_end;    /* buffers end at an inaccessible page, else they begin at one */

/* `size` bytes of junk on a multiple of `alignment`. */
static void *new_buffer(size_t size, size_t alignment)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (size / page + 1) * page;
    unsigned char *base =
        mmap(NULL, body + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || buffer_count == MOST_BUFFERS ||
        mprotect(base, page, PROT_NONE) != 0 ||
        mprotect(base + page + body, page, PROT_NONE) != 0) {
        perror("check_conv2d");
        exit(2);
    }
    buffers[buffer_count].base = base;
    buffers[buffer_count++].bytes = body + 2 * page;
    unsigned char *data = base + page + (at_end ? (body - size) / alignment * alignment : 0);
    memset(data, JUNK, size);
    return data;
}

static void free_buffers(void)
{
    while (buffer_count > 0) {
        buffer_count--;
        munmap(buffers[buffer_count].base, buffers[buffer_count].bytes);
    }
}

static float *new_floats(size_t count)
{
    float *data = new_buffer(count * sizeof(float), sizeof(float));
    for (size_t i = 0; i < count; i++)
        data[i] = random_float();
    return data;
}

/* --- a case --------------------------------------------------------------------------------- */

typedef struct {
    bi_step step;
    const void *source, *weight;    /* canonical */
    const float *residual;
    size_t pixels, results;
} layer;

/* What the layer reads; sources and tables other than floats are named by BI_FLAG_*. */
typedef enum { FLOATS, TABLE, U8, I8, SOURCES } source_kind;

static int is_integer(source_kind kind) { return kind == U8 || kind == I8; }

static void add_source(layer *l, source_kind kind)
{
    bi_step *s = &l->step;
    size_t count = (size_t)s->in_h * (size_t)s->in_w * (size_t)s->in_c;
    if (kind == FLOATS) {
        l->source = new_floats(count);
        return;
    }
    unsigned char *bytes = new_buffer(count, 1);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)(random_int(0, 7) ? random_int(0, 255) : 255 * random_int(0, 1));
    l->source = bytes;
    s->flags = kind == I8 ? BI_FLAG_I8 : BI_FLAG_U8;
    if (kind == TABLE)
        s->table = new_floats(256 * (size_t)s->in_c);
}

static void add_weight(layer *l, int type)
{
    bi_step *s = &l->step;
    int32_t channels = s->in_c / s->groups;
    size_t rows = (size_t)s->out_c * (size_t)s->kernel_h * (size_t)s->kernel_w;
    size_t count = rows * (size_t)channels, words = ((size_t)channels + 63) / 64;
    s->weight_type = type;
    if (type == BI_WEIGHT_F32) {
        l->weight = new_floats(count);
    } else if (type == BI_WEIGHT_BITS) {
        uint64_t *bits = new_buffer(rows * words * 8, 8);
        memset(bits, 0, rows * words * 8);
        for (size_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < channels; c++)
                bits[r * words + (size_t)c / 64] |= (uint64_t)random_int(0, 1) << (c % 64);
        l->weight = bits;
    } else {
        int32_t most = type == BI_WEIGHT_I8 ? 127 : count / (size_t)s->out_c < 200 ? 32767 : 3000;
        int16_t *wide = new_buffer(count * 2, 2);
        int8_t *narrow = new_buffer(count, 1);
        for (size_t i = 0; i < count; i++) {
            int32_t w = random_int(0, 9) ? random_int(-most - 1, most) : -most - 1;
            wide[i] = (int16_t)w;
            narrow[i] = (int8_t)w;
        }
        l->weight = type == BI_WEIGHT_I8 ? (const void *)narrow : wide;
    }
}

static double weight_of(const layer *l, int32_t o, int32_t ky, int32_t kx, int32_t c)
{
    const bi_step *s = &l->step;
    size_t channels = (size_t)(s->in_c / s->groups), words = (channels + 63) / 64;
    size_t row = ((size_t)o * (size_t)s->kernel_h + (size_t)ky) * (size_t)s->kernel_w + (size_t)kx;
    size_t i = row * channels + (size_t)c;
    switch (s->weight_type) {
    case BI_WEIGHT_F32: return (double)((const float *)l->weight)[i];
    case BI_WEIGHT_I16: return ((const int16_t *)l->weight)[i];
    case BI_WEIGHT_I8: return ((const int8_t *)l->weight)[i];
    default: {
        uint64_t word = ((const uint64_t *)l->weight)[row * words + (size_t)c / 64];
        return word >> (c % 64) & 1 ? -1 : 1;
    }
    }
}

static double value_of(const layer *l, int32_t y, int32_t x, int32_t c)
{
    const bi_step *s = &l->step;
    size_t i = ((size_t)y * (size_t)s->in_w + (size_t)x) * (size_t)s->in_c + (size_t)c;
    if (s->table != NULL)
        return (double)s->table[((const uint8_t *)l->source)[i] * (size_t)s->in_c + (size_t)c];
    if (s->flags & BI_FLAG_U8)
        return ((const uint8_t *)l->source)[i];
    if (s->flags & BI_FLAG_I8)
        return ((const int8_t *)l->source)[i];
    return (double)((const float *)l->source)[i];
}

/* One sum, exact for integers (|sum| < 2^53), and what its float rounding and its offset depend on. */
typedef struct {
    double sum, magnitude, offset;
} exact;

static exact sum_of(const layer *l, int32_t oy, int32_t ox, int32_t o)
{
    const bi_step *s = &l->step;
    int32_t channels = s->in_c / s->groups, first = o / (s->out_c / s->groups) * channels;
    exact e = {0, 0, 0};
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            int32_t y = oy * s->stride_h - s->pad_top + ky * s->dilation_h;
            int32_t x = ox * s->stride_w - s->pad_left + kx * s->dilation_w;
            if (y < 0 || y >= s->in_h || x < 0 || x >= s->in_w)
                continue;
            for (int32_t c = 0; c < channels; c++) {
                double w = weight_of(l, o, ky, kx, c), v = value_of(l, y, x, first + c);
                e.sum += w * v;
                e.magnitude += fabs(w * v);
                if (s->offset != NULL)
                    e.offset += w * (double)s->offset[first + c];
            }
        }
    return e;
}

/* --- the epilogue --------------------------------------------------------------------------- */

/* What a case adds to its sums; a sum of these, and 256 times an activation. */
enum {
    FLOOR = 1,
    ALPHA = 2,
    BIAS = 4,
    RESIDUAL = 8,
    SIGNS = 16,
    SIGNS_BESIDE = 32,
    THRESHOLD = 64,
    OFFSET = 128,
    ACTIVATION = 256
};

static void add_epilogue(layer *l, int extras)
{
    bi_step *s = &l->step;
    size_t outputs = (size_t)s->out_c;
    s->floor = extras & FLOOR ? new_floats(outputs) : NULL;
    s->alpha = extras & ALPHA ? new_floats(outputs) : NULL;
    s->bias = extras & BIAS ? new_floats(outputs) : NULL;
    s->has_residual = (extras & RESIDUAL) != 0;
    l->residual = extras & RESIDUAL ? new_floats(l->results) : NULL;
    s->activation = extras / ACTIVATION;
    s->shift_in = s->activation == BI_ACTIVATION_RPRELU ? new_floats(outputs) : NULL;
    s->shift_out = s->activation == BI_ACTIVATION_RPRELU ? new_floats(outputs) : NULL;
    s->slope =
        s->shift_in != NULL || s->activation == BI_ACTIVATION_PRELU ? new_floats(outputs) : NULL;
    s->low = random_float();
    s->high = s->low + 1;
    if (extras & OFFSET) {    /* few digits, so that every order of summation is exact */
        float *offset = new_buffer((size_t)s->in_c * sizeof(float), sizeof(float));
        for (int32_t c = 0; c < s->in_c; c++)
            offset[c] = (float)random_int(-1000, 5000) / 16;
        s->offset = offset;
    }
    if (extras & (SIGNS | SIGNS_BESIDE | THRESHOLD)) {
        uint8_t *flip = new_buffer(outputs, 1);
        for (size_t o = 0; o < outputs; o++)
            flip[o] = (uint8_t)random_int(0, 1);
        s->flip = flip;
    }
    if (extras & (SIGNS | SIGNS_BESIDE))
        s->sign_threshold = new_floats(outputs);
    s->has_signs = (extras & SIGNS_BESIDE) != 0;
    if (extras & THRESHOLD) {
        int32_t *threshold = new_buffer(outputs * 4, 4);
        for (size_t o = 0; o < outputs; o++)
            threshold[o] = random_int(0, 9) ? random_int(-30000, 30000) : INT32_MIN;
        s->threshold = threshold;
    }
}

/* A value and by how much it may be off. */
typedef struct {
    double y, error;
} inexact;

static void add(inexact *v, double term)
{
    v->y += term;
    v->error += (fabs(v->y) + v->error) * ROUNDING;
}

static void multiply(inexact *v, double factor)
{
    v->y *= factor;
    v->error = v->error * fabs(factor) + (fabs(v->y) + v->error * fabs(factor)) * ROUNDING;
}

static inexact float_result(const layer *l, size_t pixel, int32_t o, exact e)
{
    const bi_step *s = &l->step;
    double terms = (double)s->kernel_h * s->kernel_w * (s->in_c / s->groups) + 2;
    inexact v = {e.sum, e.magnitude * terms * ROUNDING};
    if (s->floor != NULL)
        v.y = fmax(v.y, (double)s->floor[o]);
    if (s->alpha != NULL)
        multiply(&v, (double)s->alpha[o]);
    if (s->bias != NULL)
        add(&v, (double)s->bias[o]);
    if (l->residual != NULL)
        add(&v, (double)l->residual[pixel * (size_t)s->out_c + (size_t)o]);
    switch ((bi_activation)s->activation) {
    case BI_ACTIVATION_NONE: break;
    case BI_ACTIVATION_RELU: v.y = fmax(v.y, 0); break;
    case BI_ACTIVATION_CLIP: v.y = fmin(fmax(v.y, (double)s->low), (double)s->high); break;
    case BI_ACTIVATION_SIGMOID:
        v.y = 1 / (1 + exp(-v.y));
        v.error += ROUNDING;
        break;
    case BI_ACTIVATION_RPRELU: add(&v, (double)s->shift_in[o]);    /* fall through */
    case BI_ACTIVATION_PRELU: {
        double before = v.error, slope = (double)s->slope[o];
        if (v.y < 0)
            multiply(&v, slope);
        v.error = fmax(v.error, before * fmax(1, fabs(slope)));
        if (s->activation == BI_ACTIVATION_RPRELU)
            add(&v, (double)s->shift_out[o]);
        break;
    }
    }
    v.error = v.error * 1.01 + 1e-37;    /* products of errors; denormal results */
    return v;
}

/* The same for an integer sum: every operation is rounded as the contract says. */
static float integer_result(const layer *l, size_t pixel, int32_t o, exact e)
{
    const bi_step *s = &l->step;
    float y = (float)e.sum, alpha = s->alpha != NULL ? s->alpha[o] : 1.0f;
    if (s->floor != NULL)
        y = y > s->floor[o] ? y : s->floor[o];
    y = y * alpha;
    if (s->offset != NULL)
        y = y + (float)((s->bias != NULL ? (double)s->bias[o] : 0) - (double)alpha * e.offset);
    else if (s->bias != NULL)
        y = y + s->bias[o];
    if (l->residual != NULL)
        y = y + l->residual[pixel * (size_t)s->out_c + (size_t)o];
    if (s->activation == BI_ACTIVATION_RPRELU)
        y = y + s->shift_in[o];
    if (s->activation == BI_ACTIVATION_RELU)
        y = y > 0 ? y : 0;
    else if (s->activation == BI_ACTIVATION_CLIP)
        y = fminf(fmaxf(y, s->low), s->high);
    else if (s->activation == BI_ACTIVATION_SIGMOID)
        y = (float)(1 / (1 + exp(-(double)y)));
    else if (s->slope != NULL)
        y = y < 0 ? y * s->slope[o] : y;
    if (s->activation == BI_ACTIVATION_RPRELU)
        y = y + s->shift_out[o];
    return y;
}

/* --- running and comparing ------------------------------------------------------------------ */

typedef struct {
    float *floats;      /* or NULL */
    uint64_t *signs;    /* or NULL */
    size_t float_bytes, sign_bytes;
} outputs;

/* Run the rows in `parts` parts, the last first. */
static outputs run_layer(const layer *l, int32_t parts)
{
    bi_step step = l->step, *s = &step;
    const bi_kernel *kernel = bi_kernel_at(s->kernel);
    int only_signs = s->threshold != NULL || (s->sign_threshold != NULL && !s->has_signs);
    outputs out = {0};
    if (!only_signs) {
        out.float_bytes = l->results * sizeof(float);
        out.floats = new_buffer(out.float_bytes, sizeof(float));
    }
    if (only_signs || s->has_signs) {
        out.sign_bytes = l->pixels * (((size_t)s->out_c + 63) / 64) * 8;
        out.signs = new_buffer(out.sign_bytes, 8);
    }
    bi_pointers at = {
        .source = l->source,
        .residual = l->residual,
        .target = only_signs ? (void *)out.signs : (void *)out.floats,
        .signs = only_signs ? NULL : out.signs,
        .scratch = new_buffer(bi_scratch_bytes(s), 64),
    };
    void *packed = new_buffer(bi_weight_bytes(s), 64);
    bi_pack_weight(s, l->weight, packed);
    s->weight = packed;
    if (kernel->stage != NULL)
        kernel->stage(s, &at);
    int32_t end = s->rows;
    for (; parts > 1; parts--) {
        int32_t begin = random_int(0, end);
        kernel->run(s, &at, begin, end);
        end = begin;
    }
    kernel->run(s, &at, 0, end);
    return out;
}

static const char *compare_floats(const layer *l, const float *got)
{
    static char text[100];
    const bi_step *s = &l->step;
    int integer = (s->flags & (BI_FLAG_U8 | BI_FLAG_I8)) && s->table == NULL;
    for (size_t i = 0; i < l->results; i++) {
        size_t pixel = i / (size_t)s->out_c;
        int32_t o = (int32_t)(i % (size_t)s->out_c), width = s->out_w;
        exact e = sum_of(l, (int32_t)pixel / width, (int32_t)pixel % width, o);
        inexact v = {0, 0};
        if (integer)
            v.y = (double)integer_result(l, pixel, o, e);
        else
            v = float_result(l, pixel, o, e);
        if (!(fabs((double)got[i] - v.y) <= v.error)) {
            snprintf(text, sizeof text, "float %zu is %.9g, wanted %.9g +- %.2g", i, (double)got[i],
                     v.y, v.error);
            return text;
        }
    }
    return NULL;
}

/* Signs of floats (of the same kernel), or of integer sums. */
static const char *compare_signs(const layer *l, const uint64_t *got, const float *floats)
{
    const bi_step *s = &l->step;
    size_t words = ((size_t)s->out_c + 63) / 64;
    for (size_t pixel = 0; pixel < l->pixels; pixel++)
        for (int32_t bit = 0; bit < (int32_t)words * 64; bit++) {
            int set = (int)(got[pixel * words + (size_t)bit / 64] >> (bit % 64) & 1), wanted = 0;
            if (bit < s->out_c && s->threshold != NULL) {
                int32_t width = s->out_w;
                exact e = sum_of(l, (int32_t)pixel / width, (int32_t)pixel % width, bit);
                wanted = (e.sum < (double)s->threshold[bit]) != s->flip[bit];
            } else if (bit < s->out_c) {
                float y = floats[pixel * (size_t)s->out_c + (size_t)bit];
                wanted = (y < s->sign_threshold[bit]) != s->flip[bit];
            }
            if (set != wanted)
                return bit < s->out_c ? "a sign is wrong" : "a stray bit is set";
        }
    return NULL;
}

static const char *wrong_with(const layer *l)
{
    outputs whole = run_layer(l, 1), parts = run_layer(l, 3);
    if ((whole.floats != NULL && memcmp(whole.floats, parts.floats, whole.float_bytes) != 0) ||
        (whole.signs != NULL && memcmp(whole.signs, parts.signs, whole.sign_bytes) != 0))
        return "parts differ from the whole";
    const float *floats = whole.floats;
    if (floats == NULL && l->step.threshold == NULL) {
        layer beside = *l;
        beside.step.sign_threshold = NULL;
        floats = run_layer(&beside, 1).floats;
    }
    const char *wrong = floats != NULL ? compare_floats(l, floats) : NULL;
    if (wrong == NULL && whole.signs != NULL)
        wrong = compare_signs(l, whole.signs, floats);
    return wrong;
}

static long cases;

static void check_layer(bi_step s, source_kind kind, int type, int extras)
{
    if (is_integer(kind) && type == BI_WEIGHT_F32)
        type = BI_WEIGHT_I16;
    if (!is_integer(kind))
        extras &= ~(OFFSET | THRESHOLD);
    if (extras & OFFSET)
        extras &= ~(FLOOR | THRESHOLD);
    if (extras & THRESHOLD)
        extras &= ~(SIGNS | SIGNS_BESIDE);
    if (extras & SIGNS_BESIDE)
        extras &= ~SIGNS;
    layer l = {.step = s};
    l.pixels = (size_t)s.out_h * (size_t)s.out_w;
    l.results = l.pixels * (size_t)s.out_c;
    at_end = random_int(0, 1);
    add_source(&l, kind);
    add_weight(&l, type);
    add_epilogue(&l, extras);
    const bi_kernel *kernel = bi_kernel_at(s.kernel);
    if (kernel->takes != NULL && !kernel->takes(&l.step)) {
        free_buffers();
        return;
    }
    const char *wrong = wrong_with(&l);
    free_buffers();
    cases++;
    if (wrong == NULL) {
        passed++;
    } else if (failed++ < 20) {
        printf("FAILED %s %s %s: %s\n", bi_kernel_operation(s.kernel), bi_kernel_method(s.kernel),
               bi_kernel_isa(s.kernel), wrong);
        printf("  in %dx%dx%d out %dx%dx%d kernel %dx%d stride %dx%d pad %d,%d dilation %dx%d "
               "groups %d source %d weight %d extras %d\n",
               s.in_h, s.in_w, s.in_c, s.out_h, s.out_w, s.out_c, s.kernel_h, s.kernel_w,
               s.stride_h, s.stride_w, s.pad_top, s.pad_left, s.dilation_h, s.dilation_w, s.groups,
               (int)kind, type, extras);
    }
}

/* --- the cases ------------------------------------------------------------------------------ */

static bi_step new_step(int32_t kernel, int32_t h, int32_t w, int32_t c, int32_t outputs)
{
    bi_step s = {.kernel = kernel, .in_h = h, .in_w = w, .in_c = c, .out_c = outputs};
    s.out_h = s.out_w = s.rows = 1;
    s.kernel_h = s.kernel_w = s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = s.groups = 1;
    return s;
}

/* Find the size of the output; 0 if the window does not fit. */
static int place(bi_step *s, int32_t bottom, int32_t right)
{
    int32_t room_h = s->in_h + s->pad_top + bottom - s->dilation_h * (s->kernel_h - 1) - 1;
    int32_t room_w = s->in_w + s->pad_left + right - s->dilation_w * (s->kernel_w - 1) - 1;
    if (room_h < 0 || room_w < 0)
        return 0;
    s->rows = s->out_h = room_h / s->stride_h + 1;
    s->out_w = room_w / s->stride_w + 1;
    return 1;
}

static int random_extras(void)
{
    int extras = random_int(0, 255), activation = random_int(0, BI_ACTIVATION_SIGMOID);
    if (random_int(0, 3) == 0)    /* signs take the place of floats in half of all */
        extras &= ~(SIGNS | THRESHOLD);
    return extras + activation * ACTIVATION;
}

static int32_t random_side(int32_t usual, int32_t most)
{
    return random_int(0, 7) ? random_int(0, usual) : random_int(0, most);
}

/* Any window, at most `channels` inputs and `outputs` outputs of a group. */
static void check_any(int32_t kernel, source_kind kind, int type, int32_t groups, int32_t channels,
                      int32_t outputs)
{
    bi_step s = new_step(kernel, random_int(1, 9), random_int(1, 12),
                         groups * random_int(1, channels), groups * random_int(1, outputs));
    s.groups = groups;
    s.kernel_h = random_int(1, 4), s.kernel_w = random_int(1, 5);
    s.stride_h = random_int(1, 3), s.stride_w = random_int(1, 3);
    s.dilation_h = random_int(0, 3) ? 1 : random_int(2, 3);
    s.dilation_w = random_int(0, 3) ? 1 : random_int(2, 3);
    s.pad_top = random_side(2, 9), s.pad_left = random_side(2, 9);
    if (place(&s, random_side(2, 9), random_side(2, 9)))
        check_layer(s, kind, type, random_extras());
}

static void check_depthwise(int32_t kernel, source_kind kind, int type, int32_t channels)
{
    bi_step s = new_step(kernel, random_int(1, 8), random_int(1, 14), channels, channels);
    s.groups = channels;
    s.kernel_h = s.kernel_w = random_int(0, 1) ? 3 : random_int(1, 5);
    s.stride_h = s.stride_w = random_int(1, 2);
    s.dilation_h = random_int(0, 3) ? 1 : 2, s.dilation_w = random_int(0, 3) ? 1 : 2;
    s.pad_top = random_side(2, 6), s.pad_left = random_side(2, 6);
    if (place(&s, random_side(2, 6), random_side(2, 6)))
        check_layer(s, kind, type, random_extras());
}

/* Groups of few outputs, of which several fill a vector. */
static void check_small_groups(int32_t kernel, source_kind kind, int type, int32_t channels)
{
    int32_t outputs = random_int(0, 1) ? 4 : 8, groups = 16 / outputs * random_int(1, 3);
    bi_step s =
        new_step(kernel, random_int(1, 9), random_int(1, 30), groups * channels, groups * outputs);
    s.groups = groups;
    s.kernel_h = random_int(1, 4), s.kernel_w = random_int(1, 4);
    s.stride_h = random_int(1, 2), s.stride_w = random_int(1, 3);
    s.dilation_h = random_int(0, 3) ? 1 : 2, s.dilation_w = random_int(0, 3) ? 1 : 2;
    s.pad_top = random_side(2, 6), s.pad_left = random_side(2, 6);
    if (place(&s, random_side(2, 6), random_side(2, 6)))
        check_layer(s, kind, type, random_extras());
}

/* Long rows of a window: several parts of K, several chunks of pixels. */
static void check_long(int32_t kernel, source_kind kind, int type)
{
    static const int32_t channels[] = {84, 85, 86, 255, 256, 257, 511, 512, 513, 600};
    for (size_t i = 0; i < COUNT(channels); i++) {
        bi_step s = new_step(kernel, 3, random_int(3, 5), channels[i], random_int(1, 18));
        s.kernel_h = random_int(1, 3), s.kernel_w = random_int(1, 3);
        s.pad_top = random_int(0, 1), s.pad_left = random_int(0, 1);
        if (place(&s, 1, 0))
            check_layer(s, kind, type, random_extras());
    }
    bi_step s = new_step(kernel, 11, 40, 3, random_int(1, 40));
    s.kernel_h = s.kernel_w = 3, s.pad_top = s.pad_left = 1;
    if (place(&s, 1, 1))
        check_layer(s, kind, type, random_extras());
}

/* The window is the whole map, and nothing is padded. */
static void check_product(int32_t kernel, source_kind kind, int type, int32_t outputs)
{
    bi_step s = new_step(kernel, random_int(1, 4), random_int(1, 4), random_int(1, 40), outputs);
    s.kernel_h = s.in_h, s.kernel_w = s.in_w;
    if (place(&s, 0, 0))
        check_layer(s, kind, type, random_extras());
}

/* A number of outputs at which the loops of a kernel change: `i` counts from 0 to 11. */
static int32_t block_size(int32_t kernel, int32_t i)
{
    return (i / 3 + 1) * bi_kernel_block(kernel) + i % 3 - 1;
}

static void check_conv2d(int32_t kernel)
{
    for (int kind = 0; kind < SOURCES; kind++)
        for (int type = BI_WEIGHT_F32; type <= BI_WEIGHT_BITS; type++) {
            source_kind k = (source_kind)kind;
            for (int32_t i = 0; i < 50; i++) {
                check_any(kernel, k, type, 1, 9, 65);
                check_any(kernel, k, type, random_int(2, 4), 5, i % 2 ? 20 : 3);
                check_depthwise(kernel, k, type, random_int(1, 40));
                check_small_groups(kernel, k, type, i / 5 + 1);
            }
            for (int32_t o = 1; o <= 65; o++) {
                bi_step s = new_step(kernel, 4, 5, 3, o);
                s.kernel_h = 2, s.kernel_w = 3, s.pad_top = s.pad_left = 1;
                if (place(&s, 1, 1))
                    check_layer(s, k, type, random_extras());
            }
            for (int32_t i = 0; i < 12; i++) {
                check_product(kernel, k, type, block_size(kernel, i));
                check_any(kernel, k, type, 1, 4, block_size(kernel, i));
                check_depthwise(kernel, k, type, block_size(kernel, i));
            }
            check_any(kernel, k, type, 2, 3, 16);
            check_long(kernel, k, type);
        }
}

/* A batch gives what its samples give one by one, up to the rounding of sums in another order. */
static void check_batch(int32_t kernel, int type, int32_t outputs)
{
    enum { SAMPLES = 7 };
    layer l = {.step = new_step(kernel, 1, 1, random_int(1, 100), outputs)};
    l.pixels = 1, l.results = (size_t)outputs;
    add_weight(&l, type);
    add_epilogue(&l, BIAS);
    if (bi_kernel_at(kernel)->takes == NULL || bi_kernel_at(kernel)->takes(&l.step)) {
        bi_step s = l.step;
        bi_pointers at[SAMPLES];
        for (int n = 0; n < SAMPLES; n++)
            at[n] = (bi_pointers){
                .source = new_floats((size_t)s.in_c),
                .target = new_buffer((size_t)outputs * sizeof(float), sizeof(float)),
            };
        void *packed = new_buffer(bi_weight_bytes(&s), 64);
        bi_pack_weight(&s, l.weight, packed);
        s.weight = packed;
        size_t samples = (size_t)random_int(0, SAMPLES);
        bi_kernel_at(kernel)->run_batch(&s, at, samples, s.rows, s.rows);
        bi_kernel_at(kernel)->run_batch(&s, at, samples, 0, s.rows);
        const char *wrong = NULL;
        for (size_t n = 0; n < samples && wrong == NULL; n++) {
            l.source = at[n].source;
            wrong = compare_floats(&l, at[n].target);
        }
        cases++;
        if (wrong == NULL)
            passed++;
        else if (failed++ < 20)
            printf("FAILED %s %s %s, a batch: %s\n", bi_kernel_operation(kernel),
                   bi_kernel_method(kernel), bi_kernel_isa(kernel), wrong);
    }
    free_buffers();
}

static void check_dense(int32_t kernel)
{
    for (int kind = 0; kind < SOURCES; kind++)
        for (int type = BI_WEIGHT_F32; type <= BI_WEIGHT_BITS; type++) {
            for (int32_t o = 1; o <= 150; o++)
                check_layer(new_step(kernel, 1, 1, o % 9 ? random_int(1, 100) : 700, o),
                            (source_kind)kind, type, random_extras());
            for (int32_t i = 0; i < 12; i++)
                check_layer(new_step(kernel, 1, 1, random_int(1, 100), block_size(kernel, i)),
                            (source_kind)kind, type, random_extras());
        }
    for (int32_t o = 1; o <= 150 && bi_kernel_at(kernel)->run_batch != NULL; o++)
        check_batch(kernel, o % BI_WEIGHT_BITS, o);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("compiler: %s\n", bi_compiler());
    for (int32_t kernel = 0; kernel < bi_kernel_count(); kernel++) {
        int conv2d = strcmp(bi_kernel_operation(kernel), "conv2d") == 0;
        if (!conv2d && strcmp(bi_kernel_operation(kernel), "dense") != 0)
            continue;
        const char *operation = bi_kernel_operation(kernel), *method = bi_kernel_method(kernel);
        const char *isa = bi_kernel_isa(kernel);
        if (argc == 4 && (strcmp(argv[1], operation) != 0 || strcmp(argv[2], method) != 0 ||
                          strcmp(argv[3], isa) != 0))
            continue;
        if (!bi_kernel_runs_here(kernel)) {
            printf("SKIP %s %s %s: this CPU lacks it\n", operation, method, isa);
            continue;
        }
        cases = 0;
        (conv2d ? check_conv2d : check_dense)(kernel);
        printf("%s %s %s: %ld cases\n", operation, method, isa, cases);
        failed += cases == 0;
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
