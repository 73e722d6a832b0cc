/* bconv2d_bitpairs_avx512vbmi.c -- counts the ones of pairs of signs: sixteen outputs to a vector, 32 pairs
 * to each, four pixels at a time.
 *
 * A pixel is cut into halves, and bit i of the first is paired with bit i of the second.  Of a pair are
 * kept its first bit and its parity.  With d, 0 to 2, the differing bits of the pairs (a, a') and (w, w'),
 *
 *     g = (d + parity(w, w') - parity(a, a')) / 2
 *       = a ^ w if the parities are equal, else parity(w, w')         a bit
 *
 * so that one vpternlogd after the XOR makes a bit of two signs, and half of the bits need counting:
 *
 *     dot = C - 2 * PA - 4 * sum of g        PA: odd pairs of the activations under the window
 *     C   = K + 2 * odd pairs of the weights - (1 - pad_value) * signs of the weights outside the map
 *
 * since padding is laid out as pairs of 0, which are +1.  C depends on the output and on which taps are
 * inside the map (a class of rows, a class of columns).
 *
 * For a row of outputs the pixels under its windows are laid column by column, [x][ky][half a pixel] in
 * bytes, so that a window is one run of bytes, of which 32 bits at a time are broadcast: K crosses
 * taps.  What the last 32 bits have beyond the window is masked.
 *
 * Packed weight: the header, then, at the offsets that it names,
 *     weights    [vector][32 pairs of the window][first bits, parities][16] u32
 *     constants  [class of rows][class of columns] of [vector][16] f32, C; or, for thresholds, of
 *                [PA even, odd][vector][16] i32: the output is below its threshold if
 *                PA / 2 + sum of g > this
 *     scales     [bi_scale][vector][16] f32
 *     flips      [word] u64
 *     classes of the rows and of the columns, u16
 *
 * It takes groups = 1 and dilation_w = 1 alone.
 */
#if defined(__x86_64__)
#include "../isa.h"
#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "bconv2d.h"

#define BI_TARGET BI_TARGET_avx512vbmi
#define BI_OWN(name) name##_bitpairs
#define V(operation) bi_v_##operation##_avx512
#include "../epilogue_body.inc"

#define BITPAIRS_INLINE BI_TARGET_avx512vbmi static inline __attribute__((always_inline))

enum {
    SIXTEEN = 16,
    PIXELS_AT_ONCE = 4,
    COLUMNS_AT_ONCE = 8,
    COLUMN_BYTES = 8192,    /* of columns at a time: both halves stay in the first-level cache */
    BITPAIRS_SLACK = 128,   /* read or written beyond them by whole words and vectors */
    MOST_CONSTANTS = 1 << 22,
};

typedef struct {
    int32_t half;           /* bytes of half a pixel */
    int32_t column;         /* bytes of a column: kernel_h halves */
    int32_t window;         /* bytes of a window: kernel_w columns */
    int32_t steps;          /* of 32 pairs, over the window */
    int32_t vectors;
    int32_t h_classes;
    int32_t tile;           /* outputs of a row whose columns are laid out together */
    uint32_t last;          /* which bits of the last step belong to the window */
    size_t weights, constants, class_size, scales, flips, row_class, column_class;    /* offsets, but the
                                                            * size of a class: in numbers of 32 bits */
    size_t total_bytes;
    uint8_t order[128];     /* from which byte of two vectors each byte of eight columns comes */
} bitpairs;

typedef uint32_t bitpairs_u32 __attribute__((may_alias, aligned(1)));
typedef uint64_t bitpairs_u64 __attribute__((may_alias, aligned(1)));

/* The columns of a piece of a row. */
typedef struct {
    uint8_t first[COLUMN_BYTES + BITPAIRS_SLACK], odd[COLUMN_BYTES + BITPAIRS_SLACK];
} bitpairs_columns;

static int bitpairs_describe(const bi_step *s, bitpairs *shape)
{
    memset(shape, 0, sizeof *shape);
    int64_t half = ((int64_t)s->in_c + 15) / 16, column = half * s->kernel_h;
    int64_t most = COLUMN_BYTES / column;
    most = most < s->kernel_w ? 0 : (most - s->kernel_w) / s->stride_w + 1;
    if (s->dilation_w != 1 || s->groups != 1 || most < PIXELS_AT_ONCE)
        return 0;
    shape->half = (int32_t)half;
    shape->column = (int32_t)column;
    shape->window = (int32_t)(column * s->kernel_w);
    shape->steps = (shape->window + 3) / 4;
    shape->vectors = (s->out_c + SIXTEEN - 1) / SIXTEEN;
    shape->tile = (int32_t)(most / PIXELS_AT_ONCE * PIXELS_AT_ONCE);
    shape->last = UINT32_MAX >> (32 - 8 * (shape->window - 4 * (shape->steps - 1)));
    int32_t v_classes = bi_border_classes(s->out_h, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h,
                                          s->in_h, NULL);
    shape->h_classes =
        bi_border_classes(s->out_w, s->stride_w, s->pad_left, 1, s->kernel_w, s->in_w, NULL);
    size_t outputs = (size_t)shape->vectors * SIXTEEN, classes = (size_t)v_classes * (size_t)shape->h_classes;
    shape->class_size = outputs * (s->threshold != NULL ? 2 : 1);
    if (classes * shape->class_size > MOST_CONSTANTS)
        return 0;
    shape->weights = (sizeof *shape + 63) / 64 * 64;
    shape->constants = shape->weights + outputs * (size_t)shape->steps * 8;
    shape->scales = shape->constants + classes * shape->class_size * 4;
    shape->flips = shape->scales + BI_SCALES * outputs * 4;
    shape->row_class = shape->flips + bi_words(s->out_c) * 8;
    shape->column_class = shape->row_class + (size_t)s->out_h * 2;
    shape->total_bytes = shape->column_class + (size_t)s->out_w * 2;
    for (int32_t i = 0; i < (int32_t)sizeof shape->order && half <= 4 && s->kernel_h <= 3; i++) {
        int32_t x = i / shape->column % COLUMNS_AT_ONCE, ky = i % shape->column / shape->half;
        shape->order[i] = (uint8_t)(ky / 2 * 64 + x * 8 + ky % 2 * 4 + i % shape->half);
    }
    return 1;
}

static int bitpairs_takes(const bi_step *s)
{
    bitpairs shape;
    return s->out_c <= 64 && bitpairs_describe(s, &shape);
}

static size_t bitpairs_weight_bytes(const bi_step *s)
{
    bitpairs shape;
    bitpairs_describe(s, &shape);
    return shape.total_bytes;
}

/* The integer below, or equal to, half of an integer. */
static int64_t bitpairs_half(int64_t x) { return (x - (x < 0 ? x & 1 : 0)) / 2; }

/* Write what a class of output o needs, whose constant is c. */
static void bitpairs_pack_constant(const bi_step *s, const bitpairs *shape, int32_t o, int32_t c, char *to)
{
    if (s->threshold == NULL) {
        ((float *)to)[o] = (float)c;
        return;
    }
    for (int32_t odd = 0; odd < 2; odd++) {
        int64_t limit = bitpairs_half(bitpairs_half((int64_t)c - s->threshold[o]) - odd);
        ((int32_t *)to)[odd * shape->vectors * SIXTEEN + o] = (int32_t)limit;
    }
}

/* Lay out the taps of one output; return how many pairs of them are odd. */
static int32_t bitpairs_pack_taps(const bi_step *s, const bitpairs *shape, const uint64_t *taps, uint32_t *to)
{
    const uint8_t *tap = (const uint8_t *)taps;
    int32_t odd_pairs = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++, tap += bi_words(s->in_c) * 8)
            for (int32_t i = 0; i < shape->half; i++) {
                int32_t at = kx * shape->column + ky * shape->half + i;
                uint32_t first = tap[i], odd = first ^ tap[shape->half + i];
                uint32_t *step = to + (size_t)(at / 4) * 2 * SIXTEEN;
                step[0] |= first << at % 4 * 8;
                step[SIXTEEN] |= odd << at % 4 * 8;
                odd_pairs += __builtin_popcount(odd);
            }
    return odd_pairs;
}

static void bitpairs_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bitpairs shape;
    bitpairs_describe(s, &shape);
    char *base = packed;
    memset(base, 0, shape.total_bytes);
    memcpy(base, &shape, sizeof shape);
    uint16_t *row_class = (uint16_t *)(base + shape.row_class);
    uint16_t *column_class = (uint16_t *)(base + shape.column_class);
    bi_border_classes(s->out_h, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h, row_class);
    bi_border_classes(s->out_w, s->stride_w, s->pad_left, 1, s->kernel_w, s->in_w, column_class);
    const uint64_t *taps = canonical;
    size_t words = bi_words(s->in_c), outputs = (size_t)shape.vectors * SIXTEEN;
    for (int32_t o = 0; o < s->out_c; o++, taps += (size_t)(s->kernel_h * s->kernel_w) * words) {
        uint32_t *to = (uint32_t *)(base + shape.weights) +
                       (size_t)(o / SIXTEEN * shape.steps) * 2 * SIXTEEN + o % SIXTEEN;
        int32_t inside = s->kernel_h * s->kernel_w * s->in_c + 2 * bitpairs_pack_taps(s, &shape, taps, to);
        for (int32_t y = 0; y < s->out_h; y++)
            for (int32_t x = 0; x < s->out_w; x++) {
                if ((y > 0 && row_class[y] == row_class[y - 1]) ||
                    (x > 0 && column_class[x] == column_class[x - 1]))
                    continue;
                bi_bconv2d_taps t = bi_bconv2d_taps_at(s, y, x);
                int32_t outside = bi_bconv2d_signs_outside(s, taps, &t);
                size_t index = (size_t)row_class[y] * (size_t)shape.h_classes + column_class[x];
                bitpairs_pack_constant(s, &shape, o, inside - (1 - s->pad_value) * outside,
                                       base + shape.constants + index * shape.class_size * 4);
            }
        for (size_t i = 0; i < BI_SCALES; i++)
            ((float *)(base + shape.scales))[i * outputs + (size_t)o] = bi_scale_of(s, (bi_scale)i, o);
        if (s->flip != NULL)
            ((uint64_t *)(base + shape.flips))[o / 64] |= (uint64_t)(s->flip[o] != 0) << o % 64;
    }
}

/* Lay out `count` columns from column x of the map (which may lie outside) on, for output row y. */
BI_TARGET_avx512vbmi static void lay_narrow_columns(const bi_step *s, const bitpairs *shape,
                                                    const uint64_t *source, int32_t y, int32_t x,
                                                    int32_t count, bitpairs_columns *columns)
{
    const __m512i order = _mm512_loadu_si512(shape->order), behind = _mm512_loadu_si512(shape->order + 64);
    const __m128i apart = _mm_cvtsi32_si128(8 * shape->half);
    const uint64_t *row[3] = {source, source, source};
    int is_inside[3] = {0, 0, 0};
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        int32_t from = y * s->stride_h - s->pad_top + ky * s->dilation_h;
        is_inside[ky] = from >= 0 && from < s->in_h;
        row[ky] = source + (is_inside[ky] ? (ptrdiff_t)from * s->in_w : 0);
    }
    size_t bytes = (size_t)shape->column * COLUMNS_AT_ONCE;
    uint8_t *first = columns->first, *odd = columns->odd;
    for (int32_t i = 0; i < count; i += COLUMNS_AT_ONCE, x += COLUMNS_AT_ONCE, first += bytes, odd += bytes) {
        uint32_t here = x <= -COLUMNS_AT_ONCE ? 0 : x < 0 ? 0xffu << -x : 0xff;
        int32_t left = s->in_w - x;
        here &= left <= 0 ? 0 : left < COLUMNS_AT_ONCE ? (1u << left) - 1 : 0xff;
        __m512i bits[3], parity[3];
        BI_UNROLL for (int ky = 0; ky < 3; ky++) {
            __mmask8 mask = (__mmask8)(is_inside[ky] ? here : 0);
            bits[ky] = _mm512_maskz_loadu_epi64(mask, row[ky] + x);
            parity[ky] = _mm512_xor_si512(bits[ky], _mm512_srl_epi64(bits[ky], apart));
        }
        __m512i two = _mm512_mask_blend_epi32(0xaaaa, bits[0], _mm512_slli_epi64(bits[1], 32));
        __m512i two_odd = _mm512_mask_blend_epi32(0xaaaa, parity[0], _mm512_slli_epi64(parity[1], 32));
        _mm512_storeu_si512(first, _mm512_permutex2var_epi8(two, order, bits[2]));
        _mm512_storeu_si512(odd, _mm512_permutex2var_epi8(two_odd, order, parity[2]));
        if (bytes > 64) {
            _mm512_storeu_si512(first + 64, _mm512_permutex2var_epi8(two, behind, bits[2]));
            _mm512_storeu_si512(odd + 64, _mm512_permutex2var_epi8(two_odd, behind, parity[2]));
        }
    }
}

/* The same for pixels of any size. */
static void lay_columns(const bi_step *s, const bitpairs *shape, const uint64_t *source, int32_t y,
                        int32_t x, int32_t count, bitpairs_columns *columns)
{
    size_t half = (size_t)shape->half, pixel_bytes = bi_words(s->in_c) * 8, at = 0;
    for (int32_t i = 0; i < count; i++, x++)
        for (int32_t ky = 0; ky < s->kernel_h; ky++, at += half) {
            int32_t from = y * s->stride_h - s->pad_top + ky * s->dilation_h;
            if (from < 0 || from >= s->in_h || x < 0 || x >= s->in_w) {
                memset(columns->first + at, 0, half);
                memset(columns->odd + at, 0, half);
                continue;
            }
            const uint8_t *pixel =
                (const uint8_t *)source + ((size_t)from * (size_t)s->in_w + (size_t)x) * pixel_bytes;
            size_t done = 0;
            for (; done + 8 <= half; done += 8) {
                uint64_t bits = *(const bitpairs_u64 *)(pixel + done);
                *(bitpairs_u64 *)(columns->first + at + done) = bits;
                *(bitpairs_u64 *)(columns->odd + at + done) =
                    bits ^ *(const bitpairs_u64 *)(pixel + half + done);
            }
            for (; done < half; done++) {
                columns->first[at + done] = pixel[done];
                columns->odd[at + done] = pixel[done] ^ pixel[half + done];
            }
        }
}

/* Odd pairs under a window. */
BITPAIRS_INLINE int32_t count_odd(const uint8_t *odd, int32_t bytes)
{
    int64_t count = 0;
    for (; bytes >= 8; bytes -= 8, odd += 8)
        count += __builtin_popcountll(*(const bitpairs_u64 *)odd);
    if (bytes > 0)
        count += __builtin_popcountll(*(const bitpairs_u64 *)odd << (64 - 8 * bytes));
    return (int32_t)count;
}

/* What one call of the loops below needs. */
typedef struct {
    const bi_step *step;
    const bi_pointers *at;
    const bitpairs *shape;
    const uint32_t *weights;
    const uint32_t *constants;    /* of the class of rows */
    const float *scales;
    const uint64_t *flips;
    const uint16_t *column_class;
    const bitpairs_columns *columns;
    uint64_t *signs;              /* or NULL */
    float *floats;                /* or NULL */
    size_t row;                   /* number of the row's first pixel */
} bitpairs_job;

/* Finish sixteen outputs of one pixel from their sums of g; return which are below their threshold. */
BITPAIRS_INLINE uint32_t finish_sixteen(const bitpairs_job *j, size_t pixel, int32_t v, __m512i sum,
                                        int32_t odd, const uint32_t *constants, bi_output output,
                                        bi_activation kind, int is_whole)
{
    const bi_step *s = j->step;
    if (output == BI_SIGNS) {
        constants += (odd & 1) * j->shape->vectors * SIXTEEN;
        sum = _mm512_add_epi32(sum, _mm512_set1_epi32(odd >> 1));
        return _mm512_cmpgt_epi32_mask(sum, _mm512_loadu_si512(constants + v * SIXTEEN));
    }
    __m512 base = _mm512_sub_ps(_mm512_loadu_ps(constants + v * SIXTEEN), _mm512_set1_ps((float)(2 * odd)));
    __m512 dot = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(4), base);    /* exact */
    const float *scales = j->scales + v * SIXTEEN;
    size_t outputs = (size_t)j->shape->vectors * SIXTEEN;
    size_t first = pixel * (size_t)s->out_c + (size_t)v * SIXTEEN;
    bi_vector_outputs sixteen = {
        .scale = BI_SCALES_FROM(scales, outputs),
        .beta = j->at->beta != NULL ? j->at->beta + pixel : NULL,
        .residual = output == BI_SHORTCUT || j->at->residual != NULL ? j->at->residual + first : NULL,
        .floats = output != BI_ANY_OUTPUT || j->floats != NULL ? j->floats + first : NULL,
        .left = is_whole ? SIXTEEN : s->out_c - v * SIXTEEN,
    };
    return (uint32_t)finish(s, &sixteen, &dot, 1, output, kind, 1);
}

/* Neighbouring pixels of a row, from number x on; `from` says where the first window begins. */
BITPAIRS_INLINE void run_pixels(const bitpairs_job *j, int32_t x, size_t from, int pixels, bi_output output,
                                bi_activation kind, int is_whole)
{
    const bi_step *s = j->step;
    const bitpairs *shape = j->shape;
    const uint8_t *first[PIXELS_AT_ONCE], *odd[PIXELS_AT_ONCE];
    const uint32_t *constants[PIXELS_AT_ONCE];
    int32_t odd_pairs[PIXELS_AT_ONCE];
    uint64_t bits[PIXELS_AT_ONCE] = {0};
    size_t words = bi_words(s->out_c);
    BI_UNROLL for (int p = 0; p < pixels; p++) {
        size_t offset = from + (size_t)(p * s->stride_w * shape->column);
        first[p] = j->columns->first + offset;
        odd[p] = j->columns->odd + offset;
        constants[p] = j->constants + j->column_class[x + p] * shape->class_size;
        odd_pairs[p] = count_odd(odd[p], shape->window);
    }
    const __m512i last = _mm512_set1_epi32((int32_t)shape->last);
    const uint32_t *w = j->weights;
    for (int32_t v = 0; v < shape->vectors; v++) {
        __m512i total[PIXELS_AT_ONCE];
        BI_UNROLL for (int p = 0; p < pixels; p++) total[p] = _mm512_setzero_si512();
        size_t k = 0, steps = (size_t)shape->steps;
        /* vpternlogd: a bit where the parities (the second and third operand) are equal, else the second */
        enum { CHOOSE = 0xd4 };
        for (; k + 1 < steps; k++, w += 2 * SIXTEEN) {
            __m512i w_first = _mm512_loadu_si512(w), w_odd = _mm512_loadu_si512(w + SIXTEEN);
            BI_UNROLL for (int p = 0; p < pixels; p++) {
                __m512i a = _mm512_set1_epi32((int32_t)((const bitpairs_u32 *)first[p])[k]);
                __m512i a_odd = _mm512_set1_epi32((int32_t)((const bitpairs_u32 *)odd[p])[k]);
                __m512i g = _mm512_ternarylogic_epi32(_mm512_xor_si512(a, w_first), w_odd, a_odd, CHOOSE);
                total[p] = _mm512_add_epi32(total[p], _mm512_popcnt_epi32(g));
            }
        }
        __m512i w_first = _mm512_loadu_si512(w), w_odd = _mm512_loadu_si512(w + SIXTEEN);
        w += 2 * SIXTEEN;
        BI_UNROLL for (int p = 0; p < pixels; p++) {
            __m512i a = _mm512_set1_epi32((int32_t)((const bitpairs_u32 *)first[p])[k]);
            __m512i a_odd = _mm512_set1_epi32((int32_t)((const bitpairs_u32 *)odd[p])[k]);
            /* (a ^ w) & last: what is beyond the window has even weights, and gives 0 */
            __m512i differ = _mm512_ternarylogic_epi32(last, w_first, a, 0x60);
            __m512i g = _mm512_ternarylogic_epi32(differ, w_odd, a_odd, CHOOSE);
            total[p] = _mm512_add_epi32(total[p], _mm512_popcnt_epi32(g));
        }
        int32_t in_word = v % 4 * SIXTEEN;
        BI_UNROLL for (int p = 0; p < pixels; p++) {
            size_t pixel = j->row + (size_t)(x + p);
            uint64_t below = finish_sixteen(j, pixel, v, total[p], odd_pairs[p], constants[p], output, kind,
                                            is_whole);
            if (output == BI_PLAIN_FLOATS)
                continue;
            bits[p] |= below << in_word;
            if ((output == BI_SIGNS || output == BI_SHORTCUT || j->signs != NULL) &&
                (v % 4 == 3 || v == shape->vectors - 1)) {
                int32_t left = s->out_c - v / 4 * 64;
                uint64_t inside = left < 64 ? (UINT64_C(1) << left) - 1 : ~UINT64_C(0);
                j->signs[pixel * words + (size_t)(v / 4)] = (bits[p] ^ j->flips[v / 4]) & inside;
                bits[p] = 0;
            }
        }
    }
}

BITPAIRS_INLINE void run_rows(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end,
                              bi_output output, bi_activation kind, int is_whole)
{
    const bitpairs *shape = s->weight;
    const char *base = s->weight;
    const uint16_t *row_class = (const uint16_t *)(base + shape->row_class);
    int is_narrow = s->in_c <= 64 && s->kernel_h <= 3, is_signs = bi_target_is_signs(s);
    bitpairs_columns columns;
    bitpairs_job j = {
        .step = s,
        .at = at,
        .shape = shape,
        .weights = (const uint32_t *)(base + shape->weights),
        .scales = (const float *)(base + shape->scales),
        .flips = (const uint64_t *)(base + shape->flips),
        .column_class = (const uint16_t *)(base + shape->column_class),
        .columns = &columns,
        .signs = is_signs ? at->target : at->signs,
        .floats = is_signs ? NULL : at->target,
    };
    for (int32_t y = begin; y < end; y++) {
        j.row = (size_t)y * (size_t)s->out_w;
        j.constants = (const uint32_t *)(base + shape->constants) +
                      (size_t)(row_class[y] * shape->h_classes) * shape->class_size;
        for (int32_t x = 0, next; x < s->out_w; x = next) {
            next = s->out_w - x < shape->tile ? s->out_w : x + shape->tile;
            int32_t count = (next - x - 1) * s->stride_w + s->kernel_w, left = x * s->stride_w - s->pad_left;
            size_t from = 0, step = (size_t)(s->stride_w * shape->column);
            (is_narrow ? lay_narrow_columns : lay_columns)(s, shape, at->source, y, left, count, &columns);
            for (; x + PIXELS_AT_ONCE <= next; x += PIXELS_AT_ONCE, from += PIXELS_AT_ONCE * step)
                run_pixels(&j, x, from, PIXELS_AT_ONCE, output, kind, is_whole);
            for (; x < next; x++, from += step)
                run_pixels(&j, x, from, 1, output, kind, is_whole);
        }
    }
}

#define RUN(name, output, kind)                                                                        \
    BI_TARGET_avx512vbmi static __attribute__((noinline)) void bitpairs_run_##name(                    \
        const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)                           \
    {                                                                                                  \
        if (s->out_c % SIXTEEN == 0)                                                                   \
            run_rows(s, at, begin, end, output, kind, 1);                                              \
        else                                                                                           \
            run_rows(s, at, begin, end, output, kind, 0);                                              \
    }
RUN(plain, BI_PLAIN_FLOATS, BI_ACTIVATION_NONE)
RUN(shortcut, BI_SHORTCUT, BI_ACTIVATION_NONE)
RUN(signs, BI_SIGNS, BI_ACTIVATION_NONE)
RUN(rprelu, BI_ANY_OUTPUT, BI_ACTIVATION_RPRELU)
RUN(any, BI_ANY_OUTPUT, (bi_activation)s->activation)
#undef RUN

static void bitpairs_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    switch (bi_output_of(s)) {
    case BI_PLAIN_FLOATS: bitpairs_run_plain(s, at, begin, end); break;
    case BI_SHORTCUT: bitpairs_run_shortcut(s, at, begin, end); break;
    case BI_SIGNS: bitpairs_run_signs(s, at, begin, end); break;
    case BI_ANY_OUTPUT:
        if (s->activation == BI_ACTIVATION_RPRELU)
            bitpairs_run_rprelu(s, at, begin, end);
        else
            bitpairs_run_any(s, at, begin, end);
        break;
    case BI_OUTPUTS: break;
    }
}

const bi_kernel bi_bconv2d_bitpairs_avx512vbmi = {
    .takes = bitpairs_takes,
    .block = SIXTEEN,
    .weight_bytes = bitpairs_weight_bytes,
    .pack_weight = bitpairs_pack_weight,
    .run = bitpairs_run,
};

#include "../epilogue_end.inc"
#undef BITPAIRS_INLINE
#undef BI_TARGET
#undef BI_OWN
#undef V
#endif
