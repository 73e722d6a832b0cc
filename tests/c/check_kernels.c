/* check_kernels.c -- every kernel in the list against plain loops; without Python.
 *
 *   gcc -std=c11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover -Wall -Wextra -Werror \
 *       -ffp-contract=off -Icsrc $(find csrc -name '*.c') tests/c/check_kernels.c -lm \
 *       -o /tmp/check_kernels && /tmp/check_kernels
 *
 * Signs are kept as chars of -1 and +1; bits are set one by one.  Buffers are of the exact size, by
 * turns on the heap, where AddressSanitizer watches, and right before or right after an
 * inaccessible page, which sees assembly too.  Outputs hold junk before each run.  Rows are
 * computed in parts, the last first, and a part may change no other row.
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

enum { JUNK = 0xA5 };

static long passed, failed;

/* --- random numbers ------------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint64_t random_bits(void)    /* xorshift64* (Vigna 2016) */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static int32_t random_int(int32_t low, int32_t high)
{
    return low + (int32_t)((random_bits() >> 33) % (uint64_t)(high - low + 1));
}

/* A float in [-2, 2), now and then a special one. */
static float random_float(void)
{
    static const float special[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e-38f, -1.0f};
    if (random_int(0, 15) == 0)
        return special[random_int(0, 5)];
    return (float)random_int(-(1 << 20), (1 << 20) - 1) / (float)(1 << 19);
}

/* --- buffers of the exact size -------------------------------------------------------------- */

typedef enum { ON_HEAP, BEFORE_GUARD, AFTER_GUARD, PLACES } place;

typedef struct {
    unsigned char *data;
    unsigned char *base;
    size_t mapped;    /* 0 on the heap */
} buffer;

static place current_place;
static const float *current_residual;    /* of a step that has one */

static void *must(void *pointer)
{
    if (pointer == NULL || pointer == MAP_FAILED) {
        perror("check_kernels");
        exit(2);
    }
    return pointer;
}

/* `size` bytes of junk on a multiple of `alignment`; on the heap on no multiple of twice that,
 * unless it is 64. */
static buffer new_buffer(size_t size, size_t alignment)
{
    buffer b = {0};
    if (current_place == ON_HEAP) {
        size_t skew = alignment < 64 ? alignment : 0;
        void *memory = NULL;
        if (posix_memalign(&memory, 64, size + skew) != 0)
            must(NULL);
        b.base = memory;
        b.data = b.base + skew;
    } else {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t body = (size + page - 1) / page * page + (size == 0 ? page : 0);
        b.mapped = body + 2 * page;
        b.base =
            must(mmap(NULL, b.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (mprotect(b.base, page, PROT_NONE) != 0 ||
            mprotect(b.base + page + body, page, PROT_NONE) != 0)
            must(NULL);
        size_t room = body - size;
        b.data = b.base + page + (current_place == BEFORE_GUARD ? room - room % alignment : 0);
    }
    memset(b.data, JUNK, size);
    return b;
}

static void free_buffer(buffer b)
{
    if (b.mapped != 0)
        munmap(b.base, b.mapped);
    else
        free(b.base);
}

static buffer new_floats(size_t count)
{
    buffer b = new_buffer(count * sizeof(float), sizeof(float));
    for (size_t i = 0; i < count; i++)
        ((float *)b.data)[i] = random_float();
    return b;
}

/* --- one case ------------------------------------------------------------------------------- */

typedef struct {
    int32_t kernel;
    const char *name;    /* operation */
    long cases;
} subject;

static size_t map_size(int32_t h, int32_t w, int32_t c)
{
    return (size_t)h * (size_t)w * (size_t)c;
}

static void describe(const bi_step *s)
{
    printf(
        "  in %dx%dx%d out %dx%dx%d kernel %dx%d stride %dx%d pad %d,%d dilation %dx%d groups %d "
        "pad_value %d flags %d alpha %d bias %d beta %d residual %d activation %d signs %d\n",
        s->in_h, s->in_w, s->in_c, s->out_h, s->out_w, s->out_c, s->kernel_h, s->kernel_w,
        s->stride_h, s->stride_w, s->pad_top, s->pad_left, s->dilation_h, s->dilation_w, s->groups,
        s->pad_value, s->flags, s->alpha != NULL, s->bias != NULL, s->has_beta, s->has_residual,
        s->activation, s->threshold != NULL);
}

static void count_case(subject *k, const bi_step *s, int right, const char *what)
{
    k->cases++;
    if (right) {
        passed++;
        return;
    }
    if (failed++ < 20) {
        printf("FAILED %s, kernel native:%s: %s\n", k->name, bi_kernel_isa(k->kernel), what);
        describe(s);
    }
}

static bi_step plain_step(const subject *k, int32_t h, int32_t w, int32_t c)
{
    bi_step s = {0};
    s.kernel = k->kernel;
    s.in_h = s.out_h = s.rows = h;
    s.in_w = s.out_w = w;
    s.in_c = s.out_c = c;
    s.kernel_h = s.kernel_w = s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = s.groups = 1;
    return s;
}

/* Give the step its weight as the kernel wants it: re-laid into a buffer of the exact size. */
static buffer bind_weight(bi_step *s, const void *canonical)
{
    size_t size = bi_weight_bytes(s);
    buffer packed = new_buffer(size, 64);
    s->weight = canonical;
    if (size != 0) {
        bi_pack_weight(s, canonical, packed.data);
        s->weight = packed.data;
    }
    return packed;
}

/* Run the step in two parts, the last rows first; return what is wrong, or NULL.  The last row may
 * be shorter than row_bytes. */
static const char *run_in_parts(const bi_step *s, const void *source, const float *beta,
                                unsigned char *target, size_t bytes, size_t row_bytes)
{
    const bi_kernel *kernel = bi_kernel_at(s->kernel);
    buffer scratch = new_buffer(bi_scratch_bytes(s), 64);
    bi_pointers at = {.source = source, .beta = beta, .target = target, .scratch = scratch.data};
    at.residual = s->has_residual ? current_residual : NULL;
    int32_t middle = random_int(0, s->rows);
    size_t first_bytes = middle == s->rows ? bytes : (size_t)middle * row_bytes;
    const char *wrong = NULL;
    memset(target, JUNK, bytes);
    if (kernel->stage != NULL)
        kernel->stage(s, &at);
    kernel->run(s, &at, middle, s->rows);
    for (size_t i = 0; i < first_bytes; i++)
        if (target[i] != JUNK)
            wrong = "a row before the part was written to";
    buffer last = new_buffer(bytes - first_bytes, 1);
    memcpy(last.data, target + first_bytes, bytes - first_bytes);
    kernel->run(s, &at, 0, middle);
    if (memcmp(last.data, target + first_bytes, bytes - first_bytes) != 0)
        wrong = "a row behind the part was written to";
    free_buffer(last);
    free_buffer(scratch);
    return wrong;
}

/* Run a step from floats or signs to floats, and compare with `wanted`; relative error `slack`. */
static void check_count_floats(subject *k, const bi_step *s, const void *source, const float *beta,
                               const float *wanted, size_t count, size_t row_floats, double slack)
{
    buffer target = new_buffer(count * sizeof(float), sizeof(float));
    const char *wrong = run_in_parts(s, source, beta, target.data, count * sizeof(float),
                                     row_floats * sizeof(float));
    const float *got = (const float *)target.data;
    for (size_t i = 0; i < count && wrong == NULL; i++) {
        int same = memcmp(&got[i], &wanted[i], sizeof(float)) == 0;
        int both_nan = isnan(got[i]) && isnan(wanted[i]);
        int both_zero = got[i] == 0 && wanted[i] == 0;
        int near = slack > 0 &&
                   fabs((double)got[i] - (double)wanted[i]) <= slack * fabs((double)wanted[i]);
        if (!same && !both_nan && !both_zero && !near) {
            static char text[80];
            snprintf(text, sizeof text, "element %zu is %.9g, wanted %.9g", i, (double)got[i],
                     (double)wanted[i]);
            wrong = text;
        }
    }
    count_case(k, s, wrong == NULL, wrong);
    free_buffer(target);
}

static void check_floats(subject *k, const bi_step *s, const void *source, const float *beta,
                         const float *wanted, size_t row_floats, double slack)
{
    size_t count = (size_t)s->rows * row_floats;
    check_count_floats(k, s, source, beta, wanted, count, row_floats, slack);
}

/* Run a step to signs, and compare with the words of `signs`, rows of `length`. */
static void check_signs(subject *k, const bi_step *s, const void *source, const signed char *signs,
                        size_t pixels, int32_t length)
{
    size_t words = (size_t)(length + 63) / 64, row_words = pixels * words / (size_t)s->rows;
    buffer target = new_buffer(pixels * words * 8, 8);
    const char *wrong =
        run_in_parts(s, source, NULL, target.data, pixels * words * 8, row_words * 8);
    const uint64_t *got = (const uint64_t *)target.data;
    for (size_t p = 0; p < pixels && wrong == NULL; p++)
        for (size_t bit = 0; bit < words * 64; bit++) {
            int set = (int)(got[p * words + bit / 64] >> (bit % 64) & 1);
            int negative = bit < (size_t)length && signs[p * (size_t)length + bit] < 0;
            if (set != negative)
                wrong = bit < (size_t)length ? "a sign is wrong" : "a stray bit is set";
        }
    count_case(k, s, wrong == NULL, wrong);
    free_buffer(target);
}

/* --- signs ---------------------------------------------------------------------------------- */

typedef enum { RANDOM, ALL_NEGATIVE, ALL_POSITIVE } fill;

static signed char *new_signs(size_t count, fill how)
{
    signed char *signs = must(malloc(count + 1));
    for (size_t i = 0; i < count; i++)
        signs[i] = (signed char)(how == ALL_NEGATIVE   ? -1
                                 : how == ALL_POSITIVE ? 1
                                 : random_int(0, 1)    ? 1
                                                       : -1);
    return signs;
}

/* Rows of `length` signs as words. */
static buffer pack(const signed char *signs, size_t rows, int32_t length)
{
    size_t words = (size_t)(length + 63) / 64;
    buffer packed = new_buffer(rows * words * 8, 8);
    uint64_t *to = (uint64_t *)packed.data;
    memset(to, 0, rows * words * 8);
    for (size_t r = 0; r < rows; r++)
        for (int32_t i = 0; i < length; i++)
            if (signs[r * (size_t)length + (size_t)i] < 0)
                to[r * words + (size_t)i / 64] |= UINT64_C(1) << (i % 64);
    return packed;
}

/* --- binary convolution and dense ----------------------------------------------------------- */

/* What a case does to its integer results; a sum of these. */
enum { ALPHA = 1, BIAS = 2, BETA = 4, RESIDUAL = 8, ACTIVATION = 16, SIGNS = 64 };

typedef struct {
    buffer alpha, bias, slope, beta, residual, threshold, flip;
} scales;

/* Give the step what `extras` names; `bound` is the greatest result. */
static scales new_scales(bi_step *s, int extras, int32_t bound)
{
    size_t outputs = (size_t)s->out_c, pixels = map_size(s->out_h, s->out_w, 1);
    scales e = {
        .alpha = new_floats(outputs),
        .bias = new_floats(outputs),
        .slope = new_floats(outputs),
        .beta = new_floats(pixels * (size_t)s->groups),
        .residual = new_floats(pixels * outputs),
        .threshold = new_buffer(outputs * sizeof(int32_t), sizeof(int32_t)),
        .flip = new_buffer(outputs, 1),
    };
    for (size_t o = 0; o < outputs; o++) {
        static const int32_t extremes[] = {INT32_MIN, INT32_MAX};
        int32_t threshold = random_int(-bound - 2, bound + 2) / random_int(1, 8);
        if (random_int(0, 15) == 0)
            threshold = extremes[random_int(0, 1)];
        ((int32_t *)e.threshold.data)[o] = threshold;
        e.flip.data[o] = (unsigned char)random_int(0, 1);
        if (random_int(0, 31) == 0)
            ((float *)e.bias.data)[o] = random_int(0, 1) ? NAN : -INFINITY;
    }
    s->alpha = extras & ALPHA ? (const float *)e.alpha.data : NULL;
    s->bias = extras & BIAS ? (const float *)e.bias.data : NULL;
    s->has_beta = (extras & BETA) != 0;
    s->has_residual = (extras & RESIDUAL) != 0;
    s->activation = extras / ACTIVATION % 4;
    s->slope = (const float *)e.slope.data;
    s->low = random_float();
    s->high = s->low + 1;
    s->threshold = extras & SIGNS ? (const int32_t *)e.threshold.data : NULL;
    s->flip = extras & SIGNS ? e.flip.data : NULL;
    current_residual = (const float *)e.residual.data;
    return e;
}

static void free_scales(scales e)
{
    buffer all[] = {e.alpha, e.bias, e.slope, e.beta, e.residual, e.threshold, e.flip};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_buffer(all[i]);
}

static float scaled(const bi_step *s, const scales *e, int32_t dot, int32_t pixel, int32_t o)
{
    int32_t group = o / (s->out_c / s->groups);
    float y = (float)dot;
    if (s->alpha != NULL)
        y = y * s->alpha[o];
    if (s->has_beta)
        y = y * ((const float *)e->beta.data)[pixel * s->groups + group];
    if (s->bias != NULL)
        y = y + s->bias[o];
    if (s->has_residual)
        y = y + ((const float *)e->residual.data)[pixel * s->out_c + o];
    if (s->activation == BI_ACTIVATION_RELU)
        return y > 0 ? y : 0.0f;
    if (s->activation == BI_ACTIVATION_PRELU)
        return y < 0 ? y * s->slope[o] : y;
    if (s->activation == BI_ACTIVATION_CLIP) {
        float raised = y > s->low ? y : s->low;
        return raised < s->high ? raised : s->high;
    }
    return y;
}

/* Compare a binary layer with its integer results, [pixel][output]; a row of floats has at most
 * row_floats of them. */
static void check_results(subject *k, const bi_step *s, const scales *e, const void *source,
                          const int32_t *dots, size_t row_floats)
{
    size_t pixels = map_size(s->out_h, s->out_w, 1), count = pixels * (size_t)s->out_c;
    float *wanted = must(malloc(count * sizeof(float)));
    signed char *signs = must(malloc(count));
    for (size_t i = 0; i < count; i++) {
        int32_t pixel = (int32_t)(i / (size_t)s->out_c), o = (int32_t)(i % (size_t)s->out_c);
        wanted[i] = scaled(s, e, dots[i], pixel, o);
        if (s->threshold != NULL)
            signs[i] = (dots[i] < s->threshold[o]) != (s->flip[o] != 0) ? -1 : 1;
    }
    if (s->threshold != NULL)
        check_signs(k, s, source, signs, pixels, s->out_c);
    else
        check_count_floats(k, s, source, s->has_beta ? (const float *)e->beta.data : NULL, wanted,
                           count, row_floats, 0);
    free(wanted);
    free(signs);
}

/* Whether (y, x) lies on the map. */
static int on_map(const bi_step *s, int32_t y, int32_t x)
{
    return y >= 0 && y < s->in_h && x >= 0 && x < s->in_w;
}

static int32_t tap_y(const bi_step *s, int32_t oy, int32_t ky)
{
    return oy * s->stride_h + ky * s->dilation_h - s->pad_top;
}

static int32_t tap_x(const bi_step *s, int32_t ox, int32_t kx)
{
    return ox * s->stride_w + kx * s->dilation_w - s->pad_left;
}

static int32_t plain_dot(const bi_step *s, const signed char *source, const signed char *weight,
                         int32_t oy, int32_t ox, int32_t o)
{
    int32_t channels = s->in_c / s->groups, group = o / (s->out_c / s->groups), dot = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++)
            for (int32_t c = 0; c < channels; c++) {
                int32_t y = tap_y(s, oy, ky), x = tap_x(s, ox, kx), value = s->pad_value;
                if (on_map(s, y, x))
                    value = source[(y * s->in_w + x) * s->in_c + group * channels + c];
                dot += value * weight[((o * s->kernel_h + ky) * s->kernel_w + kx) * channels + c];
            }
    return dot;
}

static void check_bconv2d_case(subject *k, bi_step s, fill source_fill, fill weight_fill,
                               int extras)
{
    int32_t channels = s.in_c / s.groups;
    size_t outputs = map_size(s.out_h, s.out_w, s.out_c), pixels = map_size(s.in_h, s.in_w, 1);
    size_t weight_rows = (size_t)s.out_c * (size_t)s.kernel_h * (size_t)s.kernel_w;
    signed char *source_signs = new_signs(pixels * (size_t)s.in_c, source_fill);
    signed char *weight_signs = new_signs(weight_rows * (size_t)channels, weight_fill);
    buffer source = pack(source_signs, pixels, s.in_c);
    buffer canonical = pack(weight_signs, weight_rows, channels);
    scales e = new_scales(&s, extras, s.kernel_h * s.kernel_w * channels);
    buffer packed = bind_weight(&s, canonical.data);
    int32_t *dots = must(malloc(outputs * sizeof(int32_t)));
    for (int32_t oy = 0; oy < s.out_h; oy++)
        for (int32_t ox = 0; ox < s.out_w; ox++)
            for (int32_t o = 0; o < s.out_c; o++)
                dots[(oy * s.out_w + ox) * s.out_c + o] =
                    plain_dot(&s, source_signs, weight_signs, oy, ox, o);
    check_results(k, &s, &e, source.data, dots, (size_t)s.out_w * (size_t)s.out_c);
    free(dots);
    free(source_signs);
    free(weight_signs);
    free_scales(e);
    buffer all[] = {source, canonical, packed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_buffer(all[i]);
}

/* Place a window over the map with padding on all four sides; 0 if it does not fit. */
static int place_window(bi_step *s, int32_t pad_bottom, int32_t pad_right)
{
    int32_t reach_h = s->dilation_h * (s->kernel_h - 1) + 1;
    int32_t reach_w = s->dilation_w * (s->kernel_w - 1) + 1;
    int32_t padded_h = s->in_h + s->pad_top + pad_bottom,
            padded_w = s->in_w + s->pad_left + pad_right;
    if (reach_h > padded_h || reach_w > padded_w)
        return 0;
    s->rows = s->out_h = (padded_h - reach_h) / s->stride_h + 1;
    s->out_w = (padded_w - reach_w) / s->stride_w + 1;
    return 1;
}

static const int32_t CHANNELS[] = {1, 3, 20, 63, 64, 65, 96, 127, 128, 129, 500};
static const int32_t OUTPUTS[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33};

typedef struct {
    int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t top, bottom, left, right;
} window;

static const window WINDOWS[] = {
    {1, 1, 1, 1, 1, 1, 0, 0, 0, 0}, {1, 1, 2, 1, 1, 1, 1, 1, 1, 1}, {3, 3, 1, 1, 1, 1, 0, 0, 0, 0},
    {3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, {3, 3, 2, 2, 1, 1, 1, 0, 0, 1}, {3, 3, 1, 1, 2, 2, 2, 2, 2, 2},
    {5, 5, 1, 1, 1, 1, 2, 2, 2, 2}, {5, 5, 3, 1, 1, 1, 4, 0, 1, 5}, {7, 7, 2, 2, 1, 1, 3, 3, 3, 3},
    {2, 3, 1, 1, 1, 1, 0, 1, 2, 0}, {1, 4, 1, 2, 1, 3, 0, 0, 5, 4}, {4, 1, 1, 1, 3, 1, 7, 8, 0, 0},
    {3, 3, 1, 1, 1, 1, 5, 6, 4, 5}, {2, 2, 3, 3, 4, 4, 3, 3, 3, 3},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bi_step windowed(const subject *k, int32_t h, int32_t w, int32_t c, const window *v)
{
    bi_step s = plain_step(k, h, w, c);
    s.kernel_h = v->kernel_h, s.kernel_w = v->kernel_w;
    s.stride_h = v->stride_h, s.stride_w = v->stride_w;
    s.dilation_h = v->dilation_h, s.dilation_w = v->dilation_w;
    s.pad_top = v->top, s.pad_left = v->left;
    if (!place_window(&s, v->bottom, v->right))
        s.rows = 0;
    return s;
}

static window random_window(void)
{
    window v = {random_int(1, 5), random_int(1, 5), random_int(1, 3), random_int(1, 3),
                random_int(1, 3), random_int(1, 3), random_int(0, 4), random_int(0, 4),
                random_int(0, 4), random_int(0, 4)};
    return v;
}

static void check_bconv2d(subject *k)
{
    for (size_t c = 0; c < COUNT(CHANNELS); c++)
        for (size_t v = 0; v < COUNT(WINDOWS); v++)
            for (int32_t pad_value = -1; pad_value <= 1; pad_value++) {
                bi_step s = windowed(k, 5, 4, CHANNELS[c], &WINDOWS[v]);
                if (s.rows == 0)
                    continue;
                s.out_c = OUTPUTS[(c * COUNT(WINDOWS) + v) % COUNT(OUTPUTS)];
                s.pad_value = pad_value;
                current_place = (place)((c + v) % PLACES);
                check_bconv2d_case(k, s, RANDOM, RANDOM, 0);
            }
    for (int32_t i = 0; i < 3000; i++) {
        window v = random_window();
        int32_t groups = i % 2 ? random_int(1, 4) : 1;
        int32_t channels = random_int(1, i % 3 ? 40 : 140);
        bi_step s = windowed(k, random_int(1, 8), random_int(1, 8), groups * channels, &v);
        if (s.rows == 0)
            continue;
        s.groups = groups;
        s.out_c = groups * random_int(1, groups > 1 ? 5 : 20);
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM, random_int(0, 7));
    }
    /* Blocks of outputs, epilogues, signs; sums over several parts of K. */
    for (int32_t i = 0; i < 1500; i++) {
        window v = i % 2 ? WINDOWS[(size_t)i % COUNT(WINDOWS)] : random_window();
        int32_t groups = i % 3 ? 1 : random_int(2, 3), outputs = random_int(1, 5 * 32);
        if (groups > 1)
            outputs = i % 2 ? 16 * random_int(1, 5) : random_int(1, 40);
        bi_step s = windowed(k, random_int(1, 6), random_int(1, 7),
                             groups * random_int(1, i % 10 ? 70 : 300), &v);
        if (s.rows == 0)
            continue;
        s.groups = groups;
        s.out_c = groups * outputs;
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM,
                           random_int(0, 1) ? SIGNS : random_int(0, SIGNS - 1));
    }
    /* The greatest and least sums, around where counts in bytes overflow: 32 words. */
    static const int32_t words[] = {1, 30, 31, 32, 33, 62, 63, 94};
    for (size_t i = 0; i < COUNT(words); i++)
        for (int shape = 0; shape < 3; shape++)
            for (int equal = 0; equal < 2; equal++) {
                window v = {
                    shape == 2 ? words[i] : 1, shape == 1 ? words[i] : 1, 1, 1, 1, 1, 0, 0, 0, 0};
                bi_step s =
                    windowed(k, v.kernel_h, v.kernel_w + 1, shape == 0 ? 64 * words[i] : 64, &v);
                s.out_c = 5;
                current_place = (place)(i % PLACES);
                check_bconv2d_case(k, s, ALL_NEGATIVE, equal ? ALL_NEGATIVE : ALL_POSITIVE, 0);
            }
}

static void check_bdense_case(subject *k, int32_t length, int32_t outputs, fill source_fill,
                              fill weight_fill, int extras)
{
    bi_step s = plain_step(k, 1, 1, length);
    s.out_c = outputs;
    s.rows = (outputs + 63) / 64;
    signed char *source_signs = new_signs((size_t)length, source_fill);
    signed char *weight_signs = new_signs((size_t)length * (size_t)outputs, weight_fill);
    buffer source = pack(source_signs, 1, length);
    buffer canonical = pack(weight_signs, (size_t)outputs, length);
    scales e = new_scales(&s, extras, length);
    buffer packed = bind_weight(&s, canonical.data);
    int32_t *dots = must(malloc((size_t)outputs * sizeof(int32_t)));
    for (int32_t o = 0; o < outputs; o++) {
        dots[o] = 0;
        for (int32_t i = 0; i < length; i++)
            dots[o] += source_signs[i] * weight_signs[o * length + i];
    }
    check_results(k, &s, &e, source.data, dots, 64);
    free(dots);
    free(source_signs);
    free(weight_signs);
    free_scales(e);
    buffer all[] = {source, canonical, packed};
    for (size_t i = 0; i < COUNT(all); i++)
        free_buffer(all[i]);
}

static void check_bdense(subject *k)
{
    for (int32_t power = 1; power <= 4096; power *= 2)
        for (int32_t times = 1; times <= 3; times++)
            for (int32_t offset = -1; offset <= 1; offset++) {
                int32_t length = power * times + offset;
                if (length < 1 || length > 4200)
                    continue;
                current_place = (place)(length % PLACES);
                check_bdense_case(k, length, random_int(1, 9), RANDOM, RANDOM, random_int(0, 127));
                check_bdense_case(k, length, 2, ALL_NEGATIVE, ALL_POSITIVE, 0);
                check_bdense_case(k, length, 2, ALL_NEGATIVE, ALL_NEGATIVE, 0);
            }
    for (size_t o = 0; o < COUNT(OUTPUTS); o++)
        for (size_t c = 0; c < COUNT(CHANNELS); c++) {
            current_place = (place)((o + c) % PLACES);
            check_bdense_case(k, CHANNELS[c], OUTPUTS[o], RANDOM, RANDOM, random_int(0, 127));
        }
    for (int32_t outputs = 1; outputs <= 200; outputs++) {
        current_place = (place)(outputs % PLACES);
        check_bdense_case(k, random_int(1, 300), outputs, RANDOM, RANDOM, random_int(0, 127));
        check_bdense_case(k, 64 * random_int(1, 130), outputs, RANDOM, RANDOM, SIGNS);
    }
}

/* --- signs of numbers ----------------------------------------------------------------------- */

static double number_at(const buffer *source, size_t i, int32_t flags)
{
    if (flags & BI_FLAG_U8)
        return source->data[i];
    if (flags & BI_FLAG_I8)
        return ((const signed char *)source->data)[i];
    return (double)((const float *)source->data)[i];
}

static void check_pack_signs(subject *k)
{
    static const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    for (int32_t channels = 1; channels <= 200; channels++)
        for (int variant = 0; variant < 18; variant++) {
            int shape = variant % 3, with_thresholds = variant / 3 % 2;
            bi_step s = plain_step(k, shape == 2 ? 3 : 1, shape == 1 ? 4 : 1, channels);
            s.flags = variant < 6 ? 0 : variant < 12 ? BI_FLAG_U8 : BI_FLAG_I8;
            size_t pixels = map_size(s.in_h, s.in_w, 1), count = pixels * (size_t)channels;
            current_place = (place)((channels + variant) % PLACES);
            buffer source = s.flags == 0 ? new_floats(count) : new_buffer(count, 1);
            buffer thresholds = new_floats((size_t)channels);
            for (int32_t c = 0; c < channels; c++) {
                float *t = (float *)thresholds.data + c;
                if (s.flags != 0)
                    *t = (float)random_int(-130, 257) / (float)random_int(1, 2);
                if (random_int(0, 9) == 0)
                    *t = special[random_int(0, 5)];
            }
            for (size_t i = 0; i < count; i++)
                if (s.flags != 0)
                    source.data[i] = (unsigned char)random_int(0, 255);
                else if (random_int(0, 4) == 0)
                    ((float *)source.data)[i] = special[random_int(0, 5)];
            s.bias = with_thresholds ? (const float *)thresholds.data : NULL;
            signed char *signs = must(malloc(count));
            for (size_t i = 0; i < count; i++) {
                double threshold =
                    with_thresholds ? (double)s.bias[i % (size_t)channels] : 0.0;
                signs[i] = number_at(&source, i, s.flags) < threshold ? -1 : 1;
            }
            check_signs(k, &s, source.data, signs, pixels, channels);
            free(signs);
            free_buffer(source);
            free_buffer(thresholds);
        }
}

/* --- float layers --------------------------------------------------------------------------- */

static void check_conv2d_case(subject *k, bi_step s, int with_bias)
{
    int32_t channels = s.in_c / s.groups, outputs = s.out_c / s.groups;
    buffer source = new_floats(map_size(s.in_h, s.in_w, s.in_c));
    buffer canonical = new_floats(map_size(s.kernel_h, s.kernel_w, channels) * (size_t)s.out_c);
    buffer bias = new_floats((size_t)s.out_c);
    const float *x = (const float *)source.data, *w = (const float *)canonical.data;
    s.bias = with_bias ? (const float *)bias.data : NULL;
    buffer packed = bind_weight(&s, canonical.data);
    float *wanted = must(malloc(map_size(s.out_h, s.out_w, s.out_c) * sizeof(float)));
    for (int32_t oy = 0; oy < s.out_h; oy++)
        for (int32_t ox = 0; ox < s.out_w; ox++)
            for (int32_t o = 0; o < s.out_c; o++) {
                float sum = 0;
                for (int32_t ky = 0; ky < s.kernel_h; ky++)
                    for (int32_t kx = 0; kx < s.kernel_w; kx++)
                        for (int32_t c = 0; c < channels; c++) {
                            int32_t iy = tap_y(&s, oy, ky), ix = tap_x(&s, ox, kx);
                            if (on_map(&s, iy, ix)) {
                                int32_t in_c = o / outputs * channels + c;
                                sum += x[(iy * s.in_w + ix) * s.in_c + in_c] *
                                       w[((o * s.kernel_h + ky) * s.kernel_w + kx) * channels + c];
                            }
                        }
                wanted[(oy * s.out_w + ox) * s.out_c + o] = with_bias ? sum + s.bias[o] : sum;
            }
    check_floats(k, &s, x, NULL, wanted, (size_t)s.out_w * (size_t)s.out_c, 0);
    free(wanted);
    buffer all[] = {source, canonical, bias, packed};
    for (size_t i = 0; i < COUNT(all); i++)
        free_buffer(all[i]);
}

static void check_conv2d(subject *k)
{
    for (size_t o = 0; o < COUNT(OUTPUTS); o++)
        for (size_t v = 0; v < COUNT(WINDOWS); v++) {
            bi_step s = windowed(k, 5, 4, 1 + (int32_t)(o + v) % 9, &WINDOWS[v]);
            s.out_c = OUTPUTS[o];
            current_place = (place)((o + v) % PLACES);
            if (s.rows != 0)
                check_conv2d_case(k, s, (int)(o % 2));
        }
    for (int32_t i = 0; i < 1500; i++) {
        window v = random_window();
        int32_t groups = random_int(1, 4);
        bi_step s = windowed(k, random_int(1, 8), random_int(1, 8), groups * random_int(1, 12), &v);
        s.groups = groups;
        s.out_c = groups * random_int(1, 40 / groups);
        current_place = (place)(i % PLACES);
        if (s.rows != 0)
            check_conv2d_case(k, s, i % 2);
    }
}

static void check_dense(subject *k)
{
    for (size_t o = 0; o < COUNT(OUTPUTS); o++)
        for (size_t c = 0; c < COUNT(CHANNELS); c++) {
            bi_step s = plain_step(k, 1, 1, CHANNELS[c]);
            s.out_c = OUTPUTS[o];
            current_place = (place)((o + c) % PLACES);
            check_conv2d_case(k, s, (int)(c % 2));
        }
}

static void check_beta_map(subject *k)
{
    for (int32_t i = 0; i < 400; i++) {
        window v = i % 4 ? WINDOWS[(size_t)i % COUNT(WINDOWS)] : random_window();
        int32_t groups = random_int(1, 3), channels = random_int(1, i % 5 ? 20 : 140);
        bi_step s = windowed(k, random_int(1, 7), random_int(1, 7), groups * channels, &v);
        if (s.rows == 0)
            continue;
        s.groups = s.out_c = groups;
        current_place = (place)(i % PLACES);
        buffer source = new_floats(map_size(s.in_h, s.in_w, s.in_c));
        const float *x = (const float *)source.data;
        float *wanted = must(malloc(map_size(s.out_h, s.out_w, groups) * sizeof(float)));
        for (int32_t oy = 0; oy < s.out_h; oy++)
            for (int32_t ox = 0; ox < s.out_w; ox++)
                for (int32_t g = 0; g < groups; g++) {
                    double sum = 0;
                    for (int32_t ky = 0; ky < s.kernel_h; ky++)
                        for (int32_t kx = 0; kx < s.kernel_w; kx++)
                            for (int32_t c = 0; c < channels; c++) {
                                int32_t iy = tap_y(&s, oy, ky), ix = tap_x(&s, ox, kx);
                                if (on_map(&s, iy, ix))
                                    sum += fabs(
                                        (double)x[(iy * s.in_w + ix) * s.in_c + g * channels + c]);
                            }
                    sum /= (double)channels * s.kernel_h * s.kernel_w;
                    wanted[(oy * s.out_w + ox) * groups + g] = (float)sum;
                }
        check_floats(k, &s, x, NULL, wanted, (size_t)s.out_w * (size_t)groups, 2e-5);
        free(wanted);
        free_buffer(source);
    }
}

static void check_affine(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        bi_step s = plain_step(k, random_int(1, 4), random_int(1, 4), random_int(1, 70));
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        current_place = (place)(i % PLACES);
        buffer source = new_floats(count), scale = new_floats((size_t)s.in_c);
        buffer shift = new_floats((size_t)s.in_c);
        s.alpha = (const float *)scale.data;
        s.bias = (const float *)shift.data;
        float *wanted = must(malloc(count * sizeof(float)));
        for (size_t j = 0; j < count; j++) {
            float product = ((const float *)source.data)[j] * s.alpha[j % (size_t)s.in_c];
            wanted[j] = product + s.bias[j % (size_t)s.in_c];
        }
        check_floats(k, &s, source.data, NULL, wanted, (size_t)s.in_w * (size_t)s.in_c, 0);
        free(wanted);
        free_buffer(source);
        free_buffer(scale);
        free_buffer(shift);
    }
}

static void check_activate(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        bi_step s = plain_step(k, random_int(1, 4), random_int(1, 4), random_int(1, 70));
        s.activation = BI_ACTIVATION_RELU;
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        current_place = (place)(i % PLACES);
        buffer source = new_floats(count);
        float *x = (float *)source.data;
        x[random_int(0, (int32_t)count - 1)] = NAN;
        float *wanted = must(malloc(count * sizeof(float)));
        for (size_t j = 0; j < count; j++)
            wanted[j] = x[j] > 0 ? x[j] : 0.0f;
        check_floats(k, &s, x, NULL, wanted, (size_t)s.in_w * (size_t)s.in_c, 0);
        free(wanted);
        free_buffer(source);
    }
}

static void check_normalize(subject *k)
{
    for (int32_t i = 0; i < 60; i++) {
        bi_step s = plain_step(k, random_int(1, 9), random_int(1, 9), random_int(1, 4));
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        current_place = (place)(i % PLACES);
        buffer source = new_buffer(count, 1), table = new_floats(256 * (size_t)s.in_c);
        float *wanted = must(malloc(count * sizeof(float)));
        s.weight = table.data;
        for (size_t j = 0; j < count; j++) {
            source.data[j] = (unsigned char)(j < 2 ? 255 * j : random_bits() >> 56);
            wanted[j] =
                ((const float *)table.data)[source.data[j] * (size_t)s.in_c + j % (size_t)s.in_c];
        }
        check_floats(k, &s, source.data, NULL, wanted, (size_t)s.in_w * (size_t)s.in_c, 0);
        free(wanted);
        free_buffer(source);
        free_buffer(table);
    }
}

/* A pooling window: no dilation, padding smaller than the kernel, no larger than the map. */
static bi_step random_pool(const subject *k, int32_t channels)
{
    int32_t h = random_int(1, 8), w = random_int(1, 8);
    window v = {random_int(1, h < 4 ? h : 4),
                random_int(1, w < 4 ? w : 4),
                random_int(1, 3),
                random_int(1, 3),
                1,
                1,
                0,
                0,
                0,
                0};
    v.top = random_int(0, v.kernel_h - 1), v.bottom = random_int(0, v.kernel_h - 1);
    v.left = random_int(0, v.kernel_w - 1), v.right = random_int(0, v.kernel_w - 1);
    return windowed(k, h, w, channels, &v);
}

/* What a pool of floats gives for one output; `kind` is 'm' for the maximum. */
static float plain_pool(const bi_step *s, const float *x, int32_t oy, int32_t ox, int32_t c,
                        char kind)
{
    float sum = 0, most = -INFINITY;
    int32_t inside = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            int32_t y = tap_y(s, oy, ky), z = tap_x(s, ox, kx);
            if (!on_map(s, y, z))
                continue;
            float value = x[(y * s->in_w + z) * s->in_c + c];
            inside++;
            sum += value;
            if (isnan(value) || value > most)
                most = isnan(most) ? most : value;
        }
    if (kind == 'm')
        return most;
    int32_t whole = s->kernel_h * s->kernel_w;
    return sum / (float)(s->flags & BI_FLAG_COUNT_PADDING ? whole : inside);
}

static void check_pool_of_floats(subject *k, bi_step s, char kind)
{
    size_t count = map_size(s.in_h, s.in_w, s.in_c);
    buffer source = new_floats(count);
    float *x = (float *)source.data;
    if (kind == 'm' && random_int(0, 2) == 0)
        x[random_int(0, (int32_t)count - 1)] = NAN;
    float *wanted = must(malloc(map_size(s.out_h, s.out_w, s.out_c) * sizeof(float)));
    for (int32_t oy = 0; oy < s.out_h; oy++)
        for (int32_t ox = 0; ox < s.out_w; ox++)
            for (int32_t c = 0; c < s.in_c; c++)
                wanted[(oy * s.out_w + ox) * s.out_c + c] = plain_pool(&s, x, oy, ox, c, kind);
    check_floats(k, &s, x, NULL, wanted, (size_t)s.out_w * (size_t)s.out_c, 0);
    free(wanted);
    free_buffer(source);
}

static void check_avg_pool2d(subject *k)
{
    for (int32_t i = 0; i < 300; i++) {
        bi_step s = random_pool(k, random_int(1, 20));
        s.flags = i % 2 ? BI_FLAG_COUNT_PADDING : 0;
        current_place = (place)(i % PLACES);
        check_pool_of_floats(k, s, 'a');
    }
}

static void check_max_pool2d(subject *k)
{
    for (int32_t i = 0; i < 300; i++) {
        current_place = (place)(i % PLACES);
        check_pool_of_floats(k, random_pool(k, random_int(1, 20)), 'm');
        bi_step s = random_pool(k, random_int(1, 140));
        s.flags = BI_FLAG_BITS;
        size_t pixels = map_size(s.in_h, s.in_w, 1), outputs = map_size(s.out_h, s.out_w, s.in_c);
        signed char *signs = new_signs(pixels * (size_t)s.in_c, RANDOM);
        signed char *wanted = must(malloc(outputs));
        memset(wanted, -1, outputs);
        for (int32_t oy = 0; oy < s.out_h; oy++)
            for (int32_t ox = 0; ox < s.out_w; ox++)
                for (int32_t c = 0; c < s.in_c; c++)
                    for (int32_t t = 0; t < s.kernel_h * s.kernel_w; t++) {
                        int32_t y = tap_y(&s, oy, t / s.kernel_w),
                                x = tap_x(&s, ox, t % s.kernel_w);
                        if (on_map(&s, y, x) && signs[(y * s.in_w + x) * s.in_c + c] > 0)
                            wanted[(oy * s.out_w + ox) * s.in_c + c] = 1;
                    }
        buffer source = pack(signs, pixels, s.in_c);
        check_signs(k, &s, source.data, wanted, map_size(s.out_h, s.out_w, 1), s.in_c);
        free(signs);
        free(wanted);
        free_buffer(source);
    }
}

static void check_flatten(subject *k)
{
    for (int32_t i = 0; i < 240; i++) {
        bi_step s = plain_step(k, random_int(1, 4), random_int(1, 4), random_int(1, 70));
        size_t pixels = map_size(s.in_h, s.in_w, 1), channels = (size_t)s.in_c;
        size_t count = pixels * channels;
        int first = i % 2, bits = i / 2 % 2;
        s.out_h = s.out_w = s.rows = 1;
        s.out_c = (int32_t)count;
        s.flags = (first ? BI_FLAG_CHANNELS_FIRST : 0) | (bits ? BI_FLAG_BITS : 0);
        current_place = (place)(i % PLACES);
        buffer source = new_floats(count);
        const float *x = (const float *)source.data;
        signed char *signs = new_signs(count, RANDOM), *wanted_signs = must(malloc(count));
        float *wanted = must(malloc(count * sizeof(float)));
        for (size_t p = 0; p < pixels; p++)
            for (size_t c = 0; c < channels; c++) {
                size_t to = first ? c * pixels + p : p * channels + c;
                wanted[to] = x[p * channels + c];
                wanted_signs[to] = signs[p * channels + c];
            }
        buffer packed = pack(signs, pixels, s.in_c);
        if (bits)
            check_signs(k, &s, packed.data, wanted_signs, 1, s.out_c);
        else
            check_floats(k, &s, x, NULL, wanted, count, 0);
        free(signs);
        free(wanted_signs);
        free(wanted);
        free_buffer(source);
        free_buffer(packed);
    }
}

static void check_softmax(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        bi_step s = plain_step(k, 1, 1, random_int(1, 200));
        size_t count = (size_t)s.in_c;
        current_place = (place)(i % PLACES);
        buffer source = new_floats(count);
        float *x = (float *)source.data, *wanted = must(malloc(count * sizeof(float)));
        double sum = 0, most = -INFINITY;
        for (size_t j = 0; j < count; j++)
            x[j] *= (float)(1 << i % 6);
        for (size_t j = 0; j < count; j++)
            most = fmax(most, (double)x[j]);
        for (size_t j = 0; j < count; j++)
            sum += exp((double)x[j] - most);
        for (size_t j = 0; j < count; j++)
            wanted[j] = (float)(exp((double)x[j] - most) / sum);
        check_floats(k, &s, x, NULL, wanted, count, 2e-5);
        free(wanted);
        free_buffer(source);
    }
}

/* --- the whole ------------------------------------------------------------------------------ */

/* Two steps over an arena that ends at an inaccessible page, for three samples in one call. */
static void check_execute(void)
{
    subject pack_kernel = {bi_kernel_find("pack_signs", NULL), "pack_signs", 0};
    subject dense_kernel = {bi_kernel_find("bdense", NULL), "bi_execute", 0};
    const int32_t length = 130, outputs = 3, samples = 3;
    for (current_place = ON_HEAP; current_place < PLACES; current_place++) {
        bi_step steps[2] = {plain_step(&pack_kernel, 1, 1, length),
                            plain_step(&dense_kernel, 1, 1, length)};
        buffer x = new_floats((size_t)(length * samples)), arena = new_buffer(64, 64);
        buffer y = new_buffer((size_t)(outputs * samples) * sizeof(float), sizeof(float));
        signed char *weight = new_signs((size_t)(length * outputs), RANDOM);
        buffer canonical = pack(weight, (size_t)outputs, length);
        steps[0].source = -1;
        steps[0].target = steps[1].source = 0;
        steps[1].target = -2;
        steps[1].rows = 1;
        steps[1].out_c = outputs;
        buffer packed = bind_weight(&steps[1], canonical.data);
        void *externals[] = {x.data, y.data};
        int64_t strides[] = {length * 4, outputs * 4};
        bi_plan plan = {steps, 2, 64, strides};
        bi_execute(&plan, arena.data, externals, samples, NULL, NULL);
        int right = 1;
        for (int32_t n = 0; n < samples; n++)
            for (int32_t o = 0; o < outputs; o++) {
                int32_t dot = 0;
                for (int32_t i = 0; i < length; i++)
                    dot += ((const float *)x.data)[n * length + i] < 0 ? -weight[o * length + i]
                                                                       : weight[o * length + i];
                right &= ((const float *)y.data)[n * outputs + o] == (float)dot;
            }
        count_case(&dense_kernel, &steps[1], right, "three samples of two steps");
        free(weight);
        buffer all[] = {x, arena, y, canonical, packed};
        for (size_t i = 0; i < COUNT(all); i++)
            free_buffer(all[i]);
    }
    printf("bi_execute: %ld cases\n", dense_kernel.cases);
}

static void check_list(void)
{
    subject list = {0, "the kernel list", 0};
    bi_step none = {0};
    for (int32_t i = 0; i < bi_kernel_count(); i++) {
        int32_t found = bi_kernel_find(bi_kernel_operation(i), bi_kernel_isa(i));
        count_case(&list, &none, found == i || !bi_kernel_runs_here(i),
                   "a kernel is not found under its own name");
        found = bi_kernel_find(bi_kernel_operation(i), "portable");
        count_case(&list, &none, found >= 0 && strcmp(bi_kernel_isa(found), "portable") == 0,
                   "an operation has no portable kernel");
    }
    count_case(&list, &none, bi_kernel_find("no such operation", NULL) == -1, "unknown operation");
    count_case(&list, &none, bi_kernel_find("bconv2d", "no such isa") == -1, "unknown isa");
    count_case(&list, &none, bi_isa_name(-1) == NULL && bi_isa_name(1000) == NULL, "isa index");
    printf("the kernel list: %ld cases\n", list.cases);
}

typedef struct {
    const char *operation;
    void (*check)(subject *);
} checker;

static const checker CHECKERS[] = {
    {"bconv2d", check_bconv2d},       {"bdense", check_bdense},
    {"pack_signs", check_pack_signs}, {"conv2d", check_conv2d},
    {"dense", check_dense},           {"beta_map", check_beta_map},
    {"affine", check_affine},         {"activate", check_activate},
    {"normalize", check_normalize},   {"avg_pool2d", check_avg_pool2d},
    {"max_pool2d", check_max_pool2d}, {"flatten", check_flatten},
    {"softmax", check_softmax},
};

static void check_kernel(int32_t kernel)
{
    subject k = {kernel, bi_kernel_operation(kernel), 0};
    const char *isa = bi_kernel_isa(kernel);
    if (!bi_kernel_runs_here(kernel)) {
        printf("SKIP native:%s: this CPU lacks it (%s)\n", isa, k.name);
        return;
    }
    random_state = 88172645463325252u;
    for (size_t i = 0; i < COUNT(CHECKERS); i++)
        if (strcmp(CHECKERS[i].operation, k.name) == 0) {
            CHECKERS[i].check(&k);
            printf("native:%s %s: %ld cases\n", isa, k.name, k.cases);
            return;
        }
    printf("FAILED %s: there is no check for this operation\n", k.name);
    failed++;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("compiler: %s\n", bi_compiler());
    check_list();
    for (int32_t kernel = 0; kernel < bi_kernel_count(); kernel++)
        check_kernel(kernel);
    check_execute();
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
