/* check_common.c -- random numbers, buffers, windows, and how a kernel is run and compared. */
#define _DEFAULT_SOURCE
#include "check.h"

#include <sys/mman.h>
#include <unistd.h>

enum { JUNK = 0xA5 };

long passed, failed;
int32_t random_cases = 1500;

/* --- random numbers ------------------------------------------------------------------------- */

uint64_t random_state = 1;

uint64_t random_bits(void)    /* xorshift64* (Vigna 2016) */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

int32_t random_int(int32_t low, int32_t high)
{
    return low + (int32_t)((random_bits() >> 33) % (uint64_t)(high - low + 1));
}

/* A float in [-2, 2), now and then a special one. */
float random_float(void)
{
    static const float special[] = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e-38f, -1.0f};
    if (random_int(0, 15) == 0)
        return special[random_int(0, 5)];
    return (float)random_int(-(1 << 20), (1 << 20) - 1) / (float)(1 << 19);
}

/* --- buffers of the exact size -------------------------------------------------------------- */

place current_place;

void *must(void *pointer)
{
    if (pointer == NULL || pointer == MAP_FAILED) {
        perror("check_kernels");
        exit(2);
    }
    return pointer;
}

/* `size` bytes of junk on a multiple of `alignment`; on the heap on no multiple of twice that,
 * unless it is 64. */
buffer new_buffer(size_t size, size_t alignment)
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

void free_buffer(buffer b)
{
    if (b.mapped != 0)
        munmap(b.base, b.mapped);
    else
        free(b.base);
}

buffer new_floats(size_t count)
{
    buffer b = new_buffer(count * sizeof(float), sizeof(float));
    for (size_t i = 0; i < count; i++)
        ((float *)b.data)[i] = random_float();
    return b;
}

/* --- one case ------------------------------------------------------------------------------- */

size_t map_size(int32_t h, int32_t w, int32_t c) { return (size_t)h * (size_t)w * (size_t)c; }

static void describe(const bi_step *s)
{
    printf(
        "  in %dx%dx%d out %dx%dx%d kernel %dx%d stride %dx%d pad %d,%d dilation %dx%d groups %d "
        "pad_value %d flags %d alpha %d bias %d beta %d residual %d activation %d floor %d "
        "threshold %d sign_threshold %d signs %d\n",
        s->in_h, s->in_w, s->in_c, s->out_h, s->out_w, s->out_c, s->kernel_h, s->kernel_w,
        s->stride_h, s->stride_w, s->pad_top, s->pad_left, s->dilation_h, s->dilation_w, s->groups,
        s->pad_value, s->flags, s->alpha != NULL, s->bias != NULL, s->has_beta, s->has_residual,
        s->activation, s->floor != NULL, s->threshold != NULL, s->sign_threshold != NULL,
        s->has_signs);
}

/* Count a case with what is wrong with it, or NULL. */
void count_case(subject *k, const bi_step *s, const char *wrong)
{
    k->cases++;
    if (wrong == NULL) {
        passed++;
        return;
    }
    if (failed++ < 20) {
        printf("FAILED %s %s %s: %s\n", k->name, bi_kernel_method(k->kernel),
               bi_kernel_isa(k->kernel), wrong);
        describe(s);
    }
}

int is_taken(const bi_step *s)
{
    const bi_kernel *kernel = bi_kernel_at(s->kernel);
    return bi_kernel_takes(kernel, s);
}

void block_sizes(const subject *k, int32_t sizes[BLOCK_SIZES])
{
    for (int32_t i = 0; i < BLOCK_SIZES; i++) {
        int32_t size = (i / 3 + 1) * bi_kernel_block(k->kernel) + i % 3 - 1;
        sizes[i] = size > 0 ? size : 1;
    }
}

bi_step plain_step(const subject *k, int32_t h, int32_t w, int32_t c)
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
buffer bind_weight(bi_step *s, const void *canonical)
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

/* Run a part of the step, after which what the other part of the outputs held must be unchanged. */
static const char *run_part(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end,
                            const output_rows *all)
{
    buffer before[2];
    size_t from[2], to[2];    /* of the part */
    const char *wrong = NULL;
    for (int i = 0; i < 2; i++) {
        from[i] = begin == s->rows ? all[i].bytes : (size_t)begin * all[i].row_bytes;
        to[i] = end == s->rows ? all[i].bytes : (size_t)end * all[i].row_bytes;
        before[i] = new_buffer(all[i].bytes, 1);
        if (all[i].bytes != 0)
            memcpy(before[i].data, all[i].data, all[i].bytes);
    }
    bi_kernel_at(s->kernel)->run(s, at, begin, end);
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < all[i].bytes; k++)
            if ((k < from[i] || k >= to[i]) && all[i].data[k] != before[i].data[k])
                wrong = "a row outside the part was written to";
        free_buffer(before[i]);
    }
    return wrong;
}

const char *run_in_parts(const bi_step *s, const inputs *in, output_rows target, output_rows signs)
{
    const bi_kernel *kernel = bi_kernel_at(s->kernel);
    const output_rows all[2] = {target, signs};
    buffer scratch = new_buffer(bi_scratch_bytes(s), 64);
    bi_pointers at = {
        .source = in->source,
        .beta = in->beta,
        .residual = in->residual,
        .target = target.data,
        .signs = (uint64_t *)signs.data,
        .scratch = scratch.data,
    };
    int32_t middle = random_int(0, s->rows);
    if (kernel->stage != NULL)
        kernel->stage(s, &at);
    const char *last = run_part(s, &at, middle, s->rows, all);
    const char *first = run_part(s, &at, 0, middle, all);
    free_buffer(scratch);
    return last != NULL ? last : first;
}

const char *compare_floats(const float *got, const float *wanted, size_t count, double slack)
{
    for (size_t i = 0; i < count; i++) {
        int same = memcmp(&got[i], &wanted[i], sizeof(float)) == 0;
        int both_nan = isnan(got[i]) && isnan(wanted[i]);
        int both_zero = got[i] == 0 && wanted[i] == 0;
        int near = slack > 0 &&
                   fabs((double)got[i] - (double)wanted[i]) <= slack * fabs((double)wanted[i]);
        if (!same && !both_nan && !both_zero && !near) {
            static char text[80];
            snprintf(text, sizeof text, "element %zu is %.9g, wanted %.9g", i, (double)got[i],
                     (double)wanted[i]);
            return text;
        }
    }
    return NULL;
}

const char *compare_signs(const uint64_t *got, const signed char *signs, size_t pixels,
                          int32_t length)
{
    size_t words = (size_t)(length + 63) / 64;
    for (size_t p = 0; p < pixels; p++)
        for (size_t bit = 0; bit < words * 64; bit++) {
            int set = (int)(got[p * words + bit / 64] >> (bit % 64) & 1);
            int negative = bit < (size_t)length && signs[p * (size_t)length + bit] < 0;
            if (set != negative)
                return bit < (size_t)length ? "a sign is wrong" : "a stray bit is set";
        }
    return NULL;
}

void check_floats(subject *k, const bi_step *s, const void *source, const float *wanted,
                  size_t row_floats, double slack)
{
    if (!is_taken(s))
        return;
    size_t count = (size_t)s->rows * row_floats;
    buffer target = new_buffer(count * sizeof(float), sizeof(float));
    inputs in = {.source = source};
    output_rows floats = {target.data, count * sizeof(float), row_floats * sizeof(float)};
    output_rows none = {0};
    const char *wrong = run_in_parts(s, &in, floats, none);
    if (wrong == NULL)
        wrong = compare_floats((const float *)target.data, wanted, count, slack);
    count_case(k, s, wrong);
    free_buffer(target);
}

void check_signs(subject *k, const bi_step *s, const void *source, const signed char *signs,
                 size_t pixels, int32_t length)
{
    if (!is_taken(s))
        return;
    size_t bytes = pixels * ((size_t)(length + 63) / 64) * 8;
    buffer target = new_buffer(bytes, 8);
    inputs in = {.source = source};
    output_rows words = {target.data, bytes, bytes / (size_t)s->rows}, none = {0};
    const char *wrong = run_in_parts(s, &in, words, none);
    if (wrong == NULL)
        wrong = compare_signs((const uint64_t *)target.data, signs, pixels, length);
    count_case(k, s, wrong);
    free_buffer(target);
}

/* --- signs ---------------------------------------------------------------------------------- */

signed char *new_signs(size_t count, fill how)
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
buffer pack(const signed char *signs, size_t rows, int32_t length)
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

/* --- windows ---------------------------------------------------------------------------------- */

/* Whether (y, x) lies on the map. */
int on_map(const bi_step *s, int32_t y, int32_t x)
{
    return y >= 0 && y < s->in_h && x >= 0 && x < s->in_w;
}

int32_t tap_y(const bi_step *s, int32_t oy, int32_t ky)
{
    return oy * s->stride_h + ky * s->dilation_h - s->pad_top;
}

int32_t tap_x(const bi_step *s, int32_t ox, int32_t kx)
{
    return ox * s->stride_w + kx * s->dilation_w - s->pad_left;
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

const int32_t CHANNELS[CHANNEL_COUNT] = {1, 3, 20, 63, 64, 65, 96, 127, 128, 129, 500};
const int32_t OUTPUTS[OUTPUT_COUNT] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33};

const window WINDOWS[WINDOW_COUNT] = {
    {1, 1, 1, 1, 1, 1, 0, 0, 0, 0}, {1, 1, 2, 1, 1, 1, 1, 1, 1, 1}, {3, 3, 1, 1, 1, 1, 0, 0, 0, 0},
    {3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, {3, 3, 2, 2, 1, 1, 1, 0, 0, 1}, {3, 3, 1, 1, 2, 2, 2, 2, 2, 2},
    {5, 5, 1, 1, 1, 1, 2, 2, 2, 2}, {5, 5, 3, 1, 1, 1, 4, 0, 1, 5}, {7, 7, 2, 2, 1, 1, 3, 3, 3, 3},
    {2, 3, 1, 1, 1, 1, 0, 1, 2, 0}, {1, 4, 1, 2, 1, 3, 0, 0, 5, 4}, {4, 1, 1, 1, 3, 1, 7, 8, 0, 0},
    {3, 3, 1, 1, 1, 1, 5, 6, 4, 5}, {2, 2, 3, 3, 4, 4, 3, 3, 3, 3},
};

bi_step windowed(const subject *k, int32_t h, int32_t w, int32_t c, const window *v)
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

window random_window(void)
{
    window v = {random_int(1, 5), random_int(1, 5), random_int(1, 3), random_int(1, 3),
                random_int(1, 3), random_int(1, 3), random_int(0, 4), random_int(0, 4),
                random_int(0, 4), random_int(0, 4)};
    return v;
}
