/* bconv2d_bitpairs_avx512vbmi.c -- counts the ones of pairs of signs (bitpairs.h has the arithmetic and
 * the layouts): sixteen outputs to a vector, 32 pairs to each, four pixels at a time.
 *
 * A step of a window is broadcast: one XOR and one vpternlogd make a bit of two signs, vpopcntd counts
 * them.  What the last step has beyond the window is masked.  Sixteen channels are added up over the
 * whole piece, a chunk of steps at a time, whose weights stay in registers, and then finished, so that
 * their scales do.
 *
 * It leaves to lookup6 what that does in less time.
 */
#if defined(__x86_64__)
#include "../isa.h"
#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "bitpairs.h"

#include <stddef.h>

#define BI_TARGET BI_TARGET_avx512vbmi
#define BI_OWN(name) name##_bitpairs
#define V(operation) bi_v_##operation##_avx512
#include "../epilogue_body.inc"

#define BITPAIRS_INLINE BI_TARGET_avx512vbmi static inline __attribute__((always_inline))

#if defined(__clang__)
#define BI_UNROLL16 _Pragma("clang loop unroll(full)")
#else
#define BI_UNROLL16 _Pragma("GCC unroll 16")
#endif

enum {
    BITPAIRS_SLACK = 128, /* bytes read or written beyond columns by whole words and vectors */
    LONGEST_CHUNK = 9, /* steps whose weights stay in registers */
    VECTORS_OF_WORD = 4, /* of channels whose signs share a word */
};

typedef uint16_t bitpairs_u16 __attribute__((may_alias));
typedef uint32_t bitpairs_u32 __attribute__((may_alias, aligned(1)));
typedef uint64_t bitpairs_u64 __attribute__((may_alias, aligned(1)));

/* A piece of the outputs, and the columns under it, row by row. */
typedef struct {
    uint8_t first[COLUMN_BYTES + BITPAIRS_SLACK], odd[COLUMN_BYTES + BITPAIRS_SLACK];
    int32_t odd_pairs[COLUMNS_LIMIT + COLUMNS_AT_ONCE]; /* of a column */
    /* Of an output: what of its odd pairs is not in its constants (PA / 2, or 2 PA as a float), where
     * those begin, and its sums of g for the channels at hand. */
    int32_t half_odd[PIECE_OUTPUTS];
    float twice_odd[PIECE_OUTPUTS];
    uint32_t constants[PIECE_OUTPUTS];
    int32_t sums[PIECE_OUTPUTS][SIXTEEN] __attribute__((aligned(64)));
} bitpairs_piece;

static int bitpairs_takes(const bi_step *s)
{
    bi_bitpairs shape;
    return bi_bitpairs_describe(s, &shape) &&
           (s->out_c <= 64 || !bi_bitpairs_is_dearer_than_lookup6(s, &shape));
}

static size_t bitpairs_weight_bytes(const bi_step *s)
{
    bi_bitpairs shape;
    bi_bitpairs_describe(s, &shape);
    return shape.total_bytes;
}

/* Lay out `count` columns from column x of the map (which may lie outside) on, for output row y, behind
 * `begin` others.  They must come in ascending order: what is written beyond them is garbage. */
BI_TARGET_avx512vbmi static void lay_narrow_columns(const bi_step *s, const bi_bitpairs *shape,
                                                    const uint64_t *source, int32_t y, int32_t x,
                                                    int32_t count, int32_t begin, bitpairs_piece *piece)
{
    const __m512i order = _mm512_loadu_si512(shape->order), behind = _mm512_loadu_si512(shape->order + 64);
    const __m128i half = _mm_cvtsi32_si128(8 * shape->half);
    const __m512i low = _mm512_set1_epi64((int64_t)((UINT64_C(1) << 8 * shape->half) - 1));
    const uint64_t *row[3] = {source, source, source};
    uint32_t is_inside[3] = {0, 0, 0};
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        int32_t from = y * s->stride_h - s->pad_top + ky * s->dilation_h;
        is_inside[ky] = from >= 0 && from < s->in_h ? 0xff : 0;
        row[ky] = source + (is_inside[ky] ? (ptrdiff_t)from * s->in_w : 0);
    }
    size_t bytes = (size_t)shape->column * COLUMNS_AT_ONCE;
    uint8_t *first = piece->first + begin * shape->column, *odd = piece->odd + begin * shape->column;
    for (int32_t i = 0; i < count; i += COLUMNS_AT_ONCE, x += COLUMNS_AT_ONCE, first += bytes, odd += bytes) {
        uint32_t here = x <= -COLUMNS_AT_ONCE ? 0 : x < 0 ? 0xffu << -x : 0xff;
        int32_t left = s->in_w - x;
        here &= left <= 0 ? 0 : left < COLUMNS_AT_ONCE ? (1u << left) - 1 : 0xff;
        __m512i bits[3], parity[3], odd_pairs = _mm512_setzero_si512();
        BI_UNROLL for (int ky = 0; ky < 3; ky++) {
            bits[ky] = _mm512_maskz_loadu_epi64((__mmask8)(is_inside[ky] & here), row[ky] + x);
            parity[ky] = _mm512_xor_si512(bits[ky], _mm512_srl_epi64(bits[ky], half));
            parity[ky] = _mm512_and_si512(parity[ky], low);
            odd_pairs = _mm512_add_epi64(odd_pairs, _mm512_popcnt_epi64(parity[ky]));
        }
        __m512i two = _mm512_mask_blend_epi32(0xaaaa, bits[0], _mm512_slli_epi64(bits[1], 32));
        __m512i two_odd = _mm512_or_si512(parity[0], _mm512_slli_epi64(parity[1], 32));
        _mm512_storeu_si512(first, _mm512_permutex2var_epi8(two, order, bits[2]));
        _mm512_storeu_si512(odd, _mm512_permutex2var_epi8(two_odd, order, parity[2]));
        if (bytes > 64) {
            _mm512_storeu_si512(first + 64, _mm512_permutex2var_epi8(two, behind, bits[2]));
            _mm512_storeu_si512(odd + 64, _mm512_permutex2var_epi8(two_odd, behind, parity[2]));
        }
        _mm256_storeu_si256((__m256i *)(void *)(piece->odd_pairs + begin + i), _mm512_cvtepi64_epi32(odd_pairs));
    }
}

/* The same for pixels of more than a word, and columns of more than three pixels. */
BI_TARGET_avx512vbmi static void lay_columns(const bi_step *s, const bi_bitpairs *shape, const uint64_t *source,
                                             int32_t y, int32_t x, int32_t count, int32_t begin,
                                             bitpairs_piece *piece)
{
    size_t half = (size_t)shape->half, pixel_bytes = bi_words(s->in_c) * 8;
    size_t at = (size_t)(begin * shape->column);
    for (int32_t i = begin; i < begin + count; i++, x++) {
        int64_t odd_pairs = 0;
        for (int32_t ky = 0; ky < s->kernel_h; ky++, at += half) {
            int32_t from = y * s->stride_h - s->pad_top + ky * s->dilation_h;
            uint8_t *first = piece->first + at, *odd = piece->odd + at;
            if (from < 0 || from >= s->in_h || x < 0 || x >= s->in_w) {
                memset(first, 0, half);
                memset(odd, 0, half);
                continue;
            }
            const uint8_t *pixel =
                (const uint8_t *)source + ((size_t)from * (size_t)s->in_w + (size_t)x) * pixel_bytes;
            /* Eight bytes at a time: what is written beyond is written again by what comes next, and
             * nothing is read beyond the pixel. */
            for (size_t done = 0; done < half; done += 8) {
                size_t from_end = pixel_bytes - 8, second = half + done;
                size_t beyond = second > from_end ? second - from_end : 0;
                uint64_t bits = *(const bitpairs_u64 *)(pixel + done);
                uint64_t other = *(const bitpairs_u64 *)(pixel + second - beyond) >> 8 * beyond;
                uint64_t inside = half - done < 8 ? (UINT64_C(1) << 8 * (half - done)) - 1 : ~UINT64_C(0);
                uint64_t parity = (bits ^ other) & inside;
                *(bitpairs_u64 *)(first + done) = bits;
                *(bitpairs_u64 *)(odd + done) = parity;
                odd_pairs += __builtin_popcountll(parity);
            }
        }
        piece->odd_pairs[i] = (int32_t)odd_pairs;
    }
}

/* Note for each of `width` outputs of a row, behind `begin` others, what the columns from `column` on say of
 * it, which are of these classes; the class of the row begins `row_class` constants behind the first. */
BI_TARGET_avx512vbmi static void describe_outputs(const bi_step *s, const bi_bitpairs *shape, uint32_t row_class,
                                                  const uint16_t *column_class, int32_t width,
                                                  int32_t column, int32_t begin, bitpairs_piece *piece)
{
    const int32_t *odd_pairs = piece->odd_pairs + column;
    const __m512i size = _mm512_set1_epi32((int32_t)shape->class_size);
    const __m512i outputs = _mm512_set1_epi32(s->threshold != NULL ? shape->vectors * SIXTEEN : 0);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i apart = _mm512_mullo_epi32(lane, _mm512_set1_epi32(s->stride_w));
    for (int32_t x = 0; x < width; x += SIXTEEN) {
        __mmask16 here = (__mmask16)(width - x < SIXTEEN ? (1u << (width - x)) - 1 : 0xffff);
        __m512i odd = _mm512_setzero_si512();
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const int32_t *from = odd_pairs + x * s->stride_w + kx;
            odd = _mm512_add_epi32(
                odd, s->stride_w == 1
                         ? _mm512_maskz_loadu_epi32(here, from)
                         : _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), here, apart, from, 4));
        }
        __m512i of_column = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(here, column_class + x));
        __m512i constants = _mm512_add_epi32(_mm512_mullo_epi32(of_column, size),
                                             _mm512_set1_epi32((int32_t)row_class));
        __mmask16 is_odd = _mm512_test_epi32_mask(odd, _mm512_set1_epi32(1));
        constants = _mm512_mask_add_epi32(constants, is_odd, constants, outputs);
        _mm512_mask_storeu_epi32(piece->constants + begin + x, here, constants);
        _mm512_mask_storeu_epi32(piece->half_odd + begin + x, here, _mm512_srli_epi32(odd, 1));
        __m512 twice = _mm512_cvtepi32_ps(_mm512_add_epi32(odd, odd));
        _mm512_mask_storeu_ps(piece->twice_odd + begin + x, here, twice);
    }
}

/* Weights of a chunk, and where in a window its columns begin. */
typedef struct {
    const uint32_t *weights;
    size_t from;
    size_t step;      /* bytes of columns from an output to the next, */
    size_t row;       /* and from a row to the next */
    int32_t width, rows;
    uint32_t last;    /* which bits of the last step count */
    int is_first;     /* of the chunks */
} bitpairs_chunk;

/* Add up `steps` steps of `outputs` neighbouring outputs, whose columns begin at `at`. */
BITPAIRS_INLINE void add_outputs(const bitpairs_chunk *c, const __m512i *first, const __m512i *odd, int steps,
                                 const uint8_t *at, int32_t (*sums)[SIXTEEN], int outputs)
{
    /* vpternlogd: the first where the parities (second and third) are equal, else the second. */
    enum { CHOOSE = 0xd4, MASKED_XOR = 0x60 };
    const __m512i last = _mm512_set1_epi32((int32_t)c->last);
    const size_t behind = offsetof(bitpairs_piece, odd) - offsetof(bitpairs_piece, first);
    __m512i total[4];
    const uint8_t *from[4];
    BI_UNROLL for (int i = 0; i < outputs; i++) {
        from[i] = at + (size_t)i * c->step;
        __asm__("" : "+r"(from[i]));    /* else compilers keep an offset of every step and output, in memory */
    }
    BI_UNROLL16 for (int k = 0; k < steps; k++)
        BI_UNROLL for (int i = 0; i < outputs; i++) {
            const uint8_t *here = from[i] + 4 * k;
            __m512i a = _mm512_set1_epi32((int32_t) * (const bitpairs_u32 *)here);
            __m512i a_odd = _mm512_set1_epi32((int32_t) * (const bitpairs_u32 *)(here + behind));
            /* Masked bits have even weights, too: they give 0. */
            __m512i differ = k + 1 < steps ? _mm512_xor_si512(first[k], a)
                                           : _mm512_ternarylogic_epi32(last, first[k], a, MASKED_XOR);
            __m512i g = _mm512_ternarylogic_epi32(differ, odd[k], a_odd, CHOOSE);
            __m512i ones = _mm512_popcnt_epi32(g);
            total[i] = k == 0 ? ones : _mm512_add_epi32(total[i], ones);
            __asm__("" : "+v"(total[i]));    /* else compilers put off additions, and run out of registers */
        }
    if (!c->is_first)
        BI_UNROLL for (int i = 0; i < outputs; i++)
            total[i] = _mm512_add_epi32(total[i], _mm512_load_si512(sums[i]));
    BI_UNROLL for (int i = 0; i < outputs; i++)
        _mm512_store_si512(sums[i], total[i]);
}

BITPAIRS_INLINE void add_steps(const bitpairs_chunk *c, int steps, bitpairs_piece *piece)
{
    __m512i first[LONGEST_CHUNK], odd[LONGEST_CHUNK];
    BI_UNROLL16 for (int k = 0; k < steps; k++) {
        first[k] = _mm512_loadu_si512(c->weights + 2 * SIXTEEN * k);
        odd[k] = _mm512_loadu_si512(c->weights + 2 * SIXTEEN * k + SIXTEEN);
    }
    const int32_t fours = c->width / 4 * 4;
    for (int32_t y = 0; y < c->rows; y++)
        for (int32_t x = 0; x < fours; x += 4)
            add_outputs(c, first, odd, steps, piece->first + c->from + (size_t)y * c->row + (size_t)x * c->step,
                        piece->sums + y * c->width + x, 4);
    for (int32_t y = 0; y < c->rows; y++)
        for (int32_t x = fours; x < c->width; x++)
            add_outputs(c, first, odd, steps, piece->first + c->from + (size_t)y * c->row + (size_t)x * c->step,
                        piece->sums + y * c->width + x, 1);
}

#define ADD_STEPS(steps)                                                                                 \
    BI_TARGET_avx512vbmi static __attribute__((noinline)) void bitpairs_add_##steps(                     \
        const bitpairs_chunk *c, bitpairs_piece *piece)                                                  \
    {                                                                                                    \
        const bitpairs_chunk copy = *c;    /* which no store can change */                               \
        add_steps(&copy, steps, piece);                                                           \
    }
ADD_STEPS(1)
ADD_STEPS(2)
ADD_STEPS(3)
ADD_STEPS(4)
ADD_STEPS(5)
ADD_STEPS(6)
ADD_STEPS(7)
ADD_STEPS(8)
ADD_STEPS(9)
#undef ADD_STEPS

/* Sums of g for one vector of channels; `c` says what is the same for all chunks. */
static void add_vector(const bi_bitpairs *shape, bitpairs_chunk c, bitpairs_piece *piece)
{
    static void (*const add[LONGEST_CHUNK])(const bitpairs_chunk *, bitpairs_piece *) = {
        bitpairs_add_1, bitpairs_add_2, bitpairs_add_3, bitpairs_add_4, bitpairs_add_5,
        bitpairs_add_6, bitpairs_add_7, bitpairs_add_8, bitpairs_add_9};
    int32_t chunks = (shape->steps + LONGEST_CHUNK - 1) / LONGEST_CHUNK, left = shape->steps;
    for (c.is_first = 1; left > 0; c.is_first = 0, chunks--) {
        int32_t steps = (left + chunks - 1) / chunks;
        c.last = steps == left ? shape->last : UINT32_MAX;
        add[steps - 1](&c, piece);
        c.weights += steps * 2 * SIXTEEN;
        c.from += (size_t)steps * 4;
        left -= steps;
    }
}

/* What finishing sixteen channels needs. */
typedef struct {
    const bi_step *step;
    const bitpairs_piece *piece;
    const uint32_t *constants;    /* of the first class */
    const float *scales;
    const float *beta;            /* or NULL; as below, of the first output of the piece */
    const float *residual;        /* or NULL */
    float *floats;                /* or NULL */
    uint64_t *signs;              /* or NULL: their word, */
    int32_t quarter;              /* of which these channels have the quarter of that number */
    int32_t channels;             /* at most sixteen */
    uint16_t flips;
} bitpairs_outputs;

/* Finish up to sixteen channels of `count` outputs. */
BITPAIRS_INLINE void finish_channels(const bitpairs_outputs *o, int32_t count, bi_output output,
                                     bi_activation kind, int is_whole)
{
    const bi_step *s = o->step;
    const bitpairs_piece *piece = o->piece;
    const size_t words = bi_words(s->out_c);
    const size_t floats_step = (size_t)s->out_c + (size_t)s->target_gap;
    const size_t residual_step = (size_t)s->out_c + (size_t)s->residual_gap;
    const int has_signs = output == BI_SIGNS || output == BI_SHORTCUT || o->signs != NULL;
    const uint32_t inside = o->channels < SIXTEEN ? (1u << o->channels) - 1 : 0xffff;
    float scales[BI_SCALES * SIXTEEN];    /* which no store can change: they stay in registers */
    if (output != BI_SIGNS)
        memcpy(scales, o->scales, sizeof scales);
    for (int32_t x = 0; x < count; x++) {
        const uint32_t *constants = o->constants + piece->constants[x];
        __m512i sum = _mm512_load_si512(piece->sums[x]);
        uint32_t below;
        if (output == BI_SIGNS) {
            sum = _mm512_add_epi32(sum, _mm512_set1_epi32(piece->half_odd[x]));
            below = _mm512_cmpgt_epi32_mask(sum, _mm512_loadu_si512(constants));
        } else {
            __m512 base = _mm512_sub_ps(_mm512_loadu_ps(constants), _mm512_set1_ps(piece->twice_odd[x]));
            __m512 dot = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(4), base);    /* exact */
            size_t floats = (size_t)x * floats_step, residual = (size_t)x * residual_step;
            bi_vector_outputs sixteen = {
                .scale = BI_SCALES_FROM(scales, SIXTEEN),
                .beta = o->beta != NULL ? o->beta + x : NULL,
                .residual = output == BI_SHORTCUT || o->residual != NULL ? o->residual + residual : NULL,
                .floats = output != BI_ANY_OUTPUT || o->floats != NULL ? o->floats + floats : NULL,
                .left = is_whole ? (int32_t)SIXTEEN : o->channels,
            };
            below = (uint32_t)finish(s, &sixteen, &dot, 1, output, kind, 1);
        }
        if (output == BI_PLAIN_FLOATS || !has_signs)
            continue;
        /* The first quarter clears the others, not all of which there may be channels for. */
        uint64_t *word = o->signs + (size_t)x * words;
        below = (below ^ o->flips) & inside;
        if (o->quarter == 0)
            *word = below;
        else
            ((bitpairs_u16 *)word)[o->quarter] = (uint16_t)below;
    }
}

#define finish_outputs BI_OWN(finish_outputs)
BITPAIRS_INLINE void finish_outputs(const bitpairs_outputs *o, int32_t count, bi_output output, bi_activation kind)
{
    if (o->channels % SIXTEEN == 0)
        finish_channels(o, count, output, kind, 1);
    else
        finish_channels(o, count, output, kind, 0);
}

#define OUTPUTS bitpairs_outputs
#include "finishes.inc"
#undef OUTPUTS

static void bitpairs_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    const bi_bitpairs *shape = s->weight;
    const char *base = s->weight;
    const uint16_t *row_class = (const uint16_t *)(base + shape->row_class);
    const uint16_t *column_class = (const uint16_t *)(base + shape->column_class);
    const float *scales = (const float *)(base + shape->scales);
    const uint64_t *flips = (const uint64_t *)(base + shape->flips);
    int is_narrow = s->in_c <= 64 && s->kernel_h <= 3;
    void (*finish_piece)(const bitpairs_outputs *, int32_t) = finish_of(s);
    bitpairs_piece piece;
    for (int32_t y = begin, rows; y < end; y += rows) {
        rows = end - y < shape->rows ? end - y : shape->rows;
        for (int32_t x = 0, width; x < s->out_w; x += width) {
            width = s->out_w - x < shape->width ? s->out_w - x : shape->width;
            int32_t columns = bi_bitpairs_columns(s, width), left = x * s->stride_w - s->pad_left;
            for (int32_t r = 0; r < rows; r++) {
                (is_narrow ? lay_narrow_columns : lay_columns)(s, shape, at->source, y + r, left, columns,
                                                               r * columns, &piece);
                uint32_t in_class = (uint32_t)(row_class[y + r] * shape->h_classes) * (uint32_t)shape->class_size;
                describe_outputs(s, shape, in_class, column_class + x, width, r * columns, r * width, &piece);
            }
            bitpairs_chunk chunk = {
                .step = (size_t)(s->stride_w * shape->column),
                .row = (size_t)(columns * shape->column),
                .width = width,
                .rows = rows,
            };
            size_t pixel = (size_t)y * (size_t)s->out_w + (size_t)x;
            bi_output_pixel first = bi_output_at(s, at, pixel, pixel);
            for (int32_t v = 0; v < shape->vectors; v++) {
                int32_t channel = v * SIXTEEN, word = v / VECTORS_OF_WORD, quarter = v % VECTORS_OF_WORD;
                chunk.weights =
                    (const uint32_t *)(base + shape->weights) + (size_t)v * (size_t)shape->steps * 2 * SIXTEEN;
                add_vector(shape, chunk, &piece);
                bitpairs_outputs o = {
                    .step = s,
                    .piece = &piece,
                    .constants = (const uint32_t *)(base + shape->constants) + channel,
                    .scales = scales + channel * BI_SCALES,
                    .beta = first.beta,
                    .residual = first.residual != NULL ? first.residual + channel : NULL,
                    .floats = first.floats != NULL ? first.floats + channel : NULL,
                    .signs = first.signs != NULL ? first.signs + word : NULL,
                    .quarter = quarter,
                    .channels = s->out_c - channel < SIXTEEN ? s->out_c - channel : (int32_t)SIXTEEN,
                    .flips = (uint16_t)(flips[word] >> SIXTEEN * quarter),
                };
                finish_piece(&o, rows * width);
            }
        }
    }
}

const bi_kernel bi_bconv2d_bitpairs_avx512vbmi = {
    .takes = bitpairs_takes,
    .leaves_gaps = 1,
    .block = SIXTEEN,
    .weight_bytes = bitpairs_weight_bytes,
    .pack_weight = bi_bitpairs_pack,
    .run = bitpairs_run,
};

#include "../epilogue_end.inc"
#undef finish_of
#undef finish_outputs
#undef BITPAIRS_INLINE
#undef BI_UNROLL16
#undef BI_TARGET
#undef BI_OWN
#undef V
#endif
