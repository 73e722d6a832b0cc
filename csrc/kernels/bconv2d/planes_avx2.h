/* planes_avx2.h -- lays out the planes of pixels.h, with AVX2: staging of the kernels of pixels_body.inc, and
 * what they ask of a tile of outputs beside its entries.
 *
 * 32 pixels of a word each are turned to lie byte by byte, and their bytes cut into nibbles: a row of the
 * padded map, which is then copied into the planes of all columns of windows.
 */
#ifndef BITINFER_PLANES_AVX2_H
#define BITINFER_PLANES_AVX2_H

#include <immintrin.h>

#include "../isa.h"
#include "../unroll.h"
#include "pixels.h"

enum { PIXELS_LAID = 32 }; /* at once */

#define PIXELS_INLINE BI_TARGET_avx2 static inline __attribute__((always_inline))

/* Bytes of a row of the map that is laid out, all phases of its columns. */
static inline size_t laid_bytes(const bi_pixels *shape)
{
    return (size_t)(shape->column_phases * (shape->entries + 1)) * shape->row;
}

PIXELS_INLINE __m256i load_pixels(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}
PIXELS_INLINE void store_pixels(void *to, __m256i x) { _mm256_storeu_si256((__m256i *)to, x); }

/* Exchange, in both halves of `count` vectors, the bits of vectors' numbers and of bytes' numbers: one bit. */
PIXELS_INLINE void interleave_bytes(const __m256i *from, __m256i *to, int count)
{
    BI_UNROLL for (int i = 0; i < count / 2; i++) {
        to[2 * i] = _mm256_unpacklo_epi8(from[i], from[i + count / 2]);
        to[2 * i + 1] = _mm256_unpackhi_epi8(from[i], from[i + count / 2]);
    }
}

/* Write the entries of a word of 32 pixels, the first `entries`, into as many planes; add the odd ones to
 * the count of each pixel. */
PIXELS_INLINE void lay_word(const uint64_t *pixels, int32_t entries, size_t plane, uint8_t *to, __m256i *odd)
{
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i parity = _mm256_setr_epi8(0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0,
                                            1, 1, 0, 0, 1, 0, 1, 1, 0);
    __m256i x[8], y[8];
    BI_UNROLL for (int i = 0; i < 8; i++)
        x[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(pixels + 2 * i))),
                                       _mm_loadu_si128((const __m128i *)(pixels + 16 + 2 * i)), 1);
    interleave_bytes(x, y, 8);
    interleave_bytes(y, x, 8);
    interleave_bytes(x, y, 8);
    interleave_bytes(y, x, 8);
    BI_UNROLL for (int i = 0; i < 8; i++) {
        if (2 * i >= entries)
            return;
        __m256i first = _mm256_and_si256(x[i], low), second = _mm256_and_si256(_mm256_srli_epi16(x[i], 4), low);
        store_pixels(to, first);
        if (2 * i + 1 < entries)
            store_pixels(to + plane, second);
        *odd = _mm256_add_epi8(*odd, _mm256_add_epi8(_mm256_shuffle_epi8(parity, first),
                                                     _mm256_shuffle_epi8(parity, second)));
        to += 2 * plane;
    }
}

/* How many multiples of stride_w there are below x; most strides are 1, and a division takes long. */
static inline int32_t strides_below(const bi_step *s, int32_t x)
{
    return x <= 0 ? 0 : s->stride_w == 1 ? x : (x + s->stride_w - 1) / s->stride_w;
}

/* Lay out 32 pixels of a row of the map from pixel x on, every stride_w-th.  Those beyond the row are entries
 * of 0. */
BI_TARGET_avx2 static inline void lay_pixels(const bi_step *s, const bi_pixels *shape, const uint64_t *row, int32_t x,
                                      uint8_t *to)
{
    size_t words = bi_words(s->in_c);
    int32_t left = strides_below(s, s->in_w - x);
    uint8_t *counts = to + (size_t)shape->entries * shape->row;
    __m256i odd = _mm256_setzero_si256();
    left = left < PIXELS_LAID ? left : (int32_t)PIXELS_LAID;
    for (size_t k = 0; k < words; k++, to += 16 * shape->row) {
        uint64_t copies[PIXELS_LAID];
        const uint64_t *pixels = row + x;
        if (words != 1 || s->stride_w != 1 || left < PIXELS_LAID) {
            size_t step = (size_t)s->stride_w * words;
            const uint64_t *from = row + (size_t)x * words + k;
            for (int32_t i = 0; i < left; i++, from += step)
                copies[i] = *from;
            memset(copies + left, 0, (size_t)(PIXELS_LAID - left) * sizeof *copies);
            pixels = copies;
        }
        lay_word(pixels, shape->entries - 16 * (int32_t)k, shape->row, to, &odd);
    }
    store_pixels(counts, odd);
}

/* Lay out padding, from one column up to another. */
PIXELS_INLINE void lay_padding(const bi_pixels *shape, int32_t begin, int32_t end, uint8_t *to)
{
    int32_t planes = begin < end ? shape->entries + 1 : 0;
    for (int32_t e = 0; e < planes; e++, to += shape->row)
        for (int32_t i = begin; i < end; i += PIXELS_LAID)
            store_pixels(to + i, _mm256_setzero_si256());
}

/* Lay out the columns of a row of the map, or (NULL) of padding, that are in one phase. */
BI_TARGET_avx2 static inline void lay_row(const bi_step *s, const bi_pixels *shape, const uint64_t *row, int32_t phase,
                                   uint8_t *to)
{
    /* Of the columns in this phase, the number of the first that is in the map, at x, and how many are. */
    int32_t first = strides_below(s, s->pad_left - phase);
    int32_t x = first * s->stride_w + phase - s->pad_left;
    int32_t count = row == NULL ? 0 : strides_below(s, s->in_w - x);
    first = first < shape->columns ? first : shape->columns;
    count = count < shape->columns - first ? count : shape->columns - first;
    lay_padding(shape, 0, first, to);
    for (int32_t i = 0; i < count; i += PIXELS_LAID)
        lay_pixels(s, shape, row, x + i * s->stride_w, to + first + i);
    lay_padding(shape, first + count, shape->columns, to);
}

/* Copy what is seen of a row, from its beginning on, at column kx of windows into the planes of that column,
 * and add up the odd entries. */
PIXELS_INLINE void spread_row(const bi_step *s, const bi_pixels *shape, const uint8_t *row, int32_t kx,
                              uint8_t *planes, uint8_t *odd)
{
    const int32_t width = s->out_w, entries = shape->entries;
    const size_t plane = shape->plane, step = shape->row;
    for (int32_t e = 0; e < entries; e++, row += step, planes += plane)
        for (int32_t x = 0; x < width; x += PIXELS_LAID)
            store_pixels(planes + x, load_pixels(row + x));
    for (int32_t x = 0; x < width; x += PIXELS_LAID) {
        __m256i before = kx == 0 ? _mm256_setzero_si256() : load_pixels(odd + x);
        store_pixels(odd + x, _mm256_add_epi8(before, load_pixels(row + x)));
    }
}

/* Copy a row that is laid out into the planes of all columns of windows. */
BI_TARGET_avx2 static inline void spread_columns(const bi_step *s, const bi_pixels *shape, const uint8_t *laid,
                                          uint8_t *planes, uint8_t *odd)
{
    size_t step = (size_t)shape->entries * shape->plane, phase_bytes = laid_bytes(shape) / (size_t)shape->column_phases;
    int32_t phase = 0, shift = 0;    /* of a column of windows */
    for (int32_t kx = 0; kx < s->kernel_w; kx++, planes += step, phase += s->dilation_w) {
        for (; phase >= s->stride_w; phase -= s->stride_w)
            shift++;
        spread_row(s, shape, laid + (size_t)phase * phase_bytes + shift, kx, planes, odd);
    }
}

/* Lay out all columns of row number `number` of the padded map that is in a phase. */
static inline void lay_phases(const bi_step *s, const bi_pixels *shape, const uint64_t *source, int32_t number, int32_t row_phase,
                        uint8_t *to)
{
    int32_t y = number * s->stride_h + row_phase - s->pad_top;
    const uint64_t *row = y < 0 || y >= s->in_h ? NULL : source + (size_t)y * (size_t)s->in_w * bi_words(s->in_c);
    for (int32_t phase = 0; phase < shape->column_phases; phase++)
        lay_row(s, shape, row, phase, to + (size_t)(phase * (shape->entries + 1)) * shape->row);
}

static inline void pixels4_stage(const bi_step *s, const bi_pointers *at)
{
    const bi_pixels *shape = s->weight;
    size_t planes = (size_t)(s->kernel_w * shape->entries) * shape->plane, phases = (size_t)shape->row_phases;
    uint8_t *base = at->scratch, *odd = base + phases * planes, *laid = odd + phases * shape->plane;
    for (int32_t phase = 0; phase < shape->row_phases; phase++, base += planes, odd += shape->plane) {
        lay_phases(s, shape, at->source, 0, phase, laid);
        /* In ascending order: what is written beyond a row is written again.  The next row is laid out before
         * a row is read, since stores take a while to be read at other offsets. */
        for (int32_t number = 0; number < shape->rows; number++) {
            size_t in_plane = (size_t)number * (size_t)s->out_w, one = (size_t)(number % 2), other = 1 - one;
            if (number + 1 < shape->rows)
                lay_phases(s, shape, at->source, number + 1, phase, laid + other * laid_bytes(shape));
            spread_columns(s, shape, laid + one * laid_bytes(shape), base + in_plane, odd + in_plane);
        }
    }
}

/* Note where the constants of `count` outputs begin, the first of which is number `first`; as many
 * as a vector holds are written beyond them, those of the first class. */
BI_TARGET_avx2 static inline void find_constants(const bi_step *s, const bi_pixels *shape, int32_t first,
                                                 int32_t count, int32_t *constants)
{
    const char *base = s->weight;
    const uint16_t *row_class = (const uint16_t *)(base + shape->row_class);
    const uint16_t *column_class = (const uint16_t *)(base + shape->column_class);
    const int32_t class_size = (int32_t)shape->class_size;
    int32_t y = first / s->out_w, x = first % s->out_w;
    for (int32_t lane = 0; lane < count; y++, x = 0) {
        int32_t left = s->out_w - x < count - lane ? s->out_w - x : count - lane;
        __m256i of_row = _mm256_set1_epi32(row_class[y] * shape->h_classes * class_size);
        for (int32_t i = 0; i < left; i += 8) {
            __m256i column =
                _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(column_class + x + i)));
            column = _mm256_mullo_epi32(column, _mm256_set1_epi32(class_size));
            store_pixels(constants + lane + i, _mm256_add_epi32(column, of_row));
        }
        lane += left;
    }
    store_pixels(constants + count, _mm256_setzero_si256());
}

/* Count the odd entries of the windows of `lanes` outputs from number `first` on.  Thresholds for an odd PA
 * follow those for an even one, PA / 2 is left; for floats, 2 PA. */
PIXELS_INLINE void count_odd_entries(const bi_step *s, const bi_pixels *shape, const uint8_t *planes, int32_t first,
                                     int32_t lanes, int32_t *constants, int16_t *odd)
{
    const size_t plane = shape->plane;
    const uint8_t *odd_planes =
        planes + (size_t)(shape->row_phases * s->kernel_w * shape->entries) * plane + first;
    const __m256i outputs = _mm256_set1_epi32(shape->outputs);
    const int32_t taps = s->kernel_h, stride = s->stride_h, dilation = s->dilation_h, width = s->out_w;
    const int is_floats = s->threshold == NULL;
    for (int32_t lane = 0; lane < lanes; lane += PIXELS_LAID) {
        __m256i sum = load_pixels(odd_planes + lane);
        for (int32_t ky = 1, phase = dilation, row = 0; ky < taps; ky++, phase += dilation) {
            for (; phase >= stride; phase -= stride)
                row++;
            sum = _mm256_add_epi8(
                sum, load_pixels(odd_planes + (size_t)phase * plane + row * width + lane));
        }
        BI_UNROLL for (int i = 0; i < 2; i++) {
            __m128i bytes = i == 0 ? _mm256_castsi256_si128(sum) : _mm256_extracti128_si256(sum, 1);
            __m256i words = _mm256_cvtepu8_epi16(bytes);
            int32_t here = lane + 16 * i;
            if (is_floats) {
                store_pixels(odd + here, _mm256_add_epi16(words, words));
                continue;
            }
            store_pixels(odd + here, _mm256_srli_epi16(words, 1));
            BI_UNROLL for (int j = 0; j < 2; j++, here += 8, bytes = _mm_srli_si128(bytes, 8)) {
                __m256i is_odd = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 31);
                __m256i more = _mm256_and_si256(_mm256_srai_epi32(is_odd, 31), outputs);
                store_pixels(constants + here,
                             _mm256_add_epi32(load_pixels(constants + here), more));
            }
        }
    }
}

/* Some times (a constant, 1 or 4) the sums of sixteen outputs of a pixel, in words, but for what their constants do
 * not have. */
PIXELS_INLINE __m256i sums_but_odd(const bi_pixels_sixteen *of, int parts, int times)
{
    __m256i sums;
    if (parts == 2) {
        sums = _mm256_maddubs_epi16(load_pixels(of->sums), _mm256_set1_epi8((char)times));
    } else {
        sums = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)(const void *)of->sums));
        sums = times == 4 ? _mm256_slli_epi16(sums, 2) : sums;
    }
    return _mm256_sub_epi16(sums, _mm256_set1_epi16(of->odd));
}

#endif
