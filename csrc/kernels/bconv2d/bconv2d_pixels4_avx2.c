/* bconv2d_pixels4_avx2.c -- binary convolution by tables of nibbles with pixels in the lanes (pixels.h has
 * the arithmetic and the layouts): for up to 64 outputs, which would leave vectors of outputs empty.
 *
 * A tile of up to 128 outputs, which may cross rows, is gathered entry by entry, so that the inner loop of
 * lookup_avx2.h runs over it with the roles exchanged.  Its sums, a byte for each pixel of each output and
 * part, are turned to lie pixel by pixel; those of two parts side by side, to be added by one vpmaddubsw.
 */
#if defined(__x86_64__)
#include "../unroll.h"
#include "../vectors/vectors_avx2.h"
#include "lookup.h"
#include "lookup_avx2.h"
#include "pixels.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_OWN(name) name##_pixels4
#define V(operation) bi_v_##operation##_avx2
#include "../epilogue_body.inc"

#define PIXELS_INLINE BI_TARGET_avx2 static inline __attribute__((always_inline))

enum {
    PIXEL_ENTRIES = PIXEL_PARTS * LONGEST_PART,
    PIXEL_ROWS = PIXEL_PARTS * PIXEL_OUTPUTS, /* of sums */
    ROWS_TURNED = 16, /* at once */
    SIXTEEN_OUTPUTS = 16, /* finished at once */
};

/* A tile of outputs. */
typedef struct {
    uint8_t entries[(PIXEL_ENTRIES + 1) * PIXEL_TILE] __attribute__((aligned(64))); /* [entry][lane] */
    uint8_t sums[PIXEL_ROWS * PIXEL_TILE] __attribute__((aligned(64))); /* [output][part][lane] */
    uint8_t turned[PIXEL_LANES][PIXEL_ROWS] __attribute__((aligned(64))); /* of one vector of pixels */
    /* Of an output pixel: where the constants of its class begin; PA / 2, and 2 PA as a float.  Vectors
     * write beyond the last. */
    int32_t constants[PIXEL_TILE + PIXEL_LANES];
    int16_t odd[PIXEL_TILE + PIXEL_LANES], half_odd[PIXEL_TILE];
    float twice_odd[PIXEL_TILE];
    /* Runs of at most 32 neighbouring outputs of a row: where they begin in a plane, and their first lane. */
    int32_t run_from[PIXEL_TILE], run_lane[PIXEL_TILE];
    int32_t runs;
} pixels_tile;

static int pixels4_takes(const bi_step *s)
{
    bi_pixels shape;
    return bi_pixels_describe(s, &shape) && !bi_pixels_are_dearer(s, &shape);
}

static size_t pixels4_weight_bytes(const bi_step *s)
{
    bi_pixels shape;
    bi_pixels_describe(s, &shape);
    return shape.total_bytes;
}

static size_t pixels4_scratch_bytes(const bi_step *s)
{
    bi_pixels shape;
    bi_pixels_describe(s, &shape);
    return shape.plane * ((size_t)shape.entries + 1);
}

PIXELS_INLINE __m256i load_pixels(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }
PIXELS_INLINE void store_pixels(void *to, __m256i x) { _mm256_storeu_si256((__m256i *)to, x); }

/* Exchange, in both halves of `count` vectors, the bits of vectors' numbers and of bytes' numbers: one bit. */
PIXELS_INLINE void interleave(const __m256i *from, __m256i *to, int count)
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
    interleave(x, y, 8);
    interleave(y, x, 8);
    interleave(x, y, 8);
    interleave(y, x, 8);
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

/* Lay out 32 columns, every stride_w-th from column x of the map (which may lie outside) on, of a row of the
 * map.  What lies outside are entries of 0. */
BI_TARGET_avx2 static void lay_pixels(const bi_step *s, const bi_pixels *shape, const uint64_t *row, int32_t x,
                                      uint8_t *to)
{
    size_t words = bi_words(s->in_c);
    uint8_t *counts = to + (size_t)shape->entries * shape->plane;
    __m256i odd = _mm256_setzero_si256();
    for (size_t k = 0; k < words; k++, to += 16 * shape->plane) {
        uint64_t copies[PIXEL_LANES];
        const uint64_t *pixels = copies;
        if (words == 1 && s->stride_w == 1 && x >= 0 && x + PIXEL_LANES <= s->in_w)
            pixels = row + x;
        else
            for (int32_t i = 0, from = x; i < PIXEL_LANES; i++, from += s->stride_w)
                copies[i] = from < 0 || from >= s->in_w ? 0 : row[(size_t)from * words + k];
        lay_word(pixels, shape->entries - 16 * (int32_t)k, shape->plane, to, &odd);
    }
    store_pixels(counts, odd);
}

static void pixels4_stage(const bi_step *s, const bi_pointers *at)
{
    const bi_pixels *shape = s->weight;
    int32_t pitch = shape->phases * shape->phase_w, reach_h = (s->kernel_h - 1) * s->dilation_h + 1;
    size_t row_words = (size_t)s->in_w * bi_words(s->in_c);
    uint8_t *to = at->scratch;
    /* In ascending order: what is written beyond a row is written again. */
    for (int32_t y = 0; y < shape->plane_h; y++, to += pitch) {
        int32_t from = y - s->pad_top;
        if (y % s->stride_h >= reach_h)
            continue;
        if (from < 0 || from >= s->in_h) {
            for (int32_t e = 0; e <= shape->entries; e++)
                memset(to + (size_t)e * shape->plane, 0, (size_t)pitch);
            continue;
        }
        const uint64_t *row = (const uint64_t *)at->source + (size_t)from * row_words;
        for (int32_t phase = 0; phase < shape->phases; phase++)
            for (int32_t x = 0; x < shape->phase_w; x += PIXEL_LANES)
                lay_pixels(s, shape, row, x * s->stride_w + phase - s->pad_left, to + phase * shape->phase_w + x);
    }
}

/* Note what is known of `count` outputs before any sums, the first of which is number `first`. */
BI_TARGET_avx2 static void describe_tile(const bi_step *s, const bi_pixels *shape, int32_t first, int32_t count,
                                         pixels_tile *tile)
{
    const char *base = s->weight;
    const uint16_t *row_class = (const uint16_t *)(base + shape->row_class);
    const uint16_t *column_class = (const uint16_t *)(base + shape->column_class);
    const __m256i size = _mm256_set1_epi32((int32_t)shape->class_size);
    int32_t y = first / s->out_w, x = first % s->out_w, pitch = shape->phases * shape->phase_w;
    tile->runs = 0;
    for (int32_t lane = 0; lane < count;) {
        int32_t left = s->out_w - x < count - lane ? s->out_w - x : count - lane;
        __m256i of_row = _mm256_set1_epi32(row_class[y] * shape->h_classes * (int32_t)shape->class_size);
        left = left < PIXEL_LANES ? left : PIXEL_LANES;
        for (int32_t i = 0; i < left; i += 8) {
            __m256i of_column =
                _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(column_class + x + i)));
            store_pixels(tile->constants + lane + i, _mm256_add_epi32(_mm256_mullo_epi32(of_column, size), of_row));
        }
        tile->run_from[tile->runs] = y * s->stride_h * pitch + x;
        tile->run_lane[tile->runs++] = lane;
        lane += left;
        x += left;
        if (x == s->out_w) {
            x = 0;
            y++;
        }
    }
}

/* Gather a row of lanes from a plane, from byte `from` on for an output at its beginning.  What is written
 * beyond is written again by the next row of lanes. */
PIXELS_INLINE void gather_lanes(const pixels_tile *tile, const uint8_t *plane, int32_t runs, uint8_t *to)
{
    for (int32_t i = 0; i < runs; i++)
        store_pixels(to + tile->run_lane[i], load_pixels(plane + tile->run_from[i]));
}

/* Gather all entries of the windows, and count which are odd. */
BI_TARGET_avx2 static void gather_tile(const bi_step *s, const bi_pixels *shape, const uint8_t *planes, int32_t vectors,
                                       pixels_tile *tile)
{
    int32_t pitch = shape->phases * shape->phase_w, lanes = vectors * PIXEL_LANES, runs = tile->runs;
    __m256i odd[2 * PIXEL_VECTORS] = {_mm256_setzero_si256()};
    for (int32_t i = 0; i < 2 * vectors; i++)
        odd[i] = _mm256_setzero_si256();
    uint8_t *to = tile->entries;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            const uint8_t *plane =
                planes + ky * s->dilation_h * pitch + bi_pixels_tap_column(s, shape, kx);
            for (int32_t e = 0; e < shape->entries; e++, plane += shape->plane, to += lanes)
                gather_lanes(tile, plane, runs, to);
            gather_lanes(tile, plane, runs, to);    /* written again by the next tap */
            for (int32_t i = 0; i < 2 * vectors; i++)
                odd[i] = _mm256_add_epi16(
                    odd[i], _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(void *)(to + 16 * i))));
        }
    /* Thresholds for an odd PA follow those for an even one. */
    const __m256i outputs = _mm256_set1_epi32(s->threshold != NULL ? shape->outputs : 0);
    for (int32_t i = 0; i < 2 * vectors; i++) {
        store_pixels(tile->half_odd + 16 * i, _mm256_srli_epi16(odd[i], 1));
        BI_UNROLL for (int j = 0; j < 2; j++) {
            __m256i wide = _mm256_cvtepi16_epi32(j == 0 ? _mm256_castsi256_si128(odd[i])
                                                        : _mm256_extracti128_si256(odd[i], 1));
            _mm256_storeu_ps(tile->twice_odd + 16 * i + 8 * j, _mm256_cvtepi32_ps(_mm256_add_epi32(wide, wide)));
            __m256i is_odd = _mm256_cmpeq_epi32(_mm256_and_si256(wide, _mm256_set1_epi32(1)), _mm256_set1_epi32(1));
            int32_t *constants = tile->constants + 16 * i + 8 * j;
            store_pixels(constants, _mm256_add_epi32(load_pixels(constants), _mm256_and_si256(is_odd, outputs)));
        }
    }
}

/* Add up all entries for all pairs of outputs. */
PIXELS_INLINE void add_pairs(const bi_pixels *shape, const uint16_t *tables, pixels_tile *tile, int vectors)
{
    const int32_t lanes = vectors * PIXEL_LANES, parts = shape->parts, pairs = shape->pairs;
    const uint8_t *entries = tile->entries, *nibbles = bi_lookup_nibbles[0];
    for (int32_t part = 0; part < parts; part++) {
        size_t count = (size_t)shape->part_entries[part];
        uint8_t *to = tile->sums + part * lanes;
        for (int32_t pair = 0; pair < pairs; pair++, tables += count, to += 2 * parts * lanes) {
            bi_sums_avx2 sums;
            BI_UNROLL for (int v = 0; v < vectors; v++)
                sums.f[v] = sums.h[v] = _mm256_setzero_si256();
            if (vectors == 4)
                bi_add_entries_4(tables, tables, entries, count, nibbles, &sums);
            else if (vectors == 3)
                bi_add_entries_3(tables, tables, entries, count, nibbles, &sums);
            else if (vectors == 2)
                bi_add_entries_2(tables, tables, entries, count, nibbles, &sums);
            else
                bi_add_entries_1(tables, tables, entries, count, nibbles, &sums);
            BI_UNROLL for (int v = 0; v < vectors; v++) {
                __m256i first, second;
                bi_separate_avx2(sums.f[v], sums.h[v], &first, &second);
                store_pixels(to + v * PIXEL_LANES, first);
                store_pixels(to + parts * lanes + v * PIXEL_LANES, second);
            }
        }
        entries += count * (size_t)lanes;
    }
}

#define ADD_PAIRS(vectors)                                                                     \
    BI_TARGET_avx2 static __attribute__((noinline)) void pixels_add_##vectors(                 \
        const bi_pixels *shape, const uint16_t *tables, pixels_tile *tile)                     \
    {                                                                                          \
        add_pairs(shape, tables, tile, vectors);                                               \
    }
ADD_PAIRS(1)
ADD_PAIRS(2)
ADD_PAIRS(3)
ADD_PAIRS(4)
#undef ADD_PAIRS

/* Turn the sums of a vector of pixels, `rows` of them `lanes` bytes apart, to lie pixel by pixel. */
BI_TARGET_avx2 static void turn_sums(const uint8_t *sums, int32_t rows, int32_t lanes, uint8_t (*to)[PIXEL_ROWS])
{
    for (int32_t row = 0; row < rows; row += ROWS_TURNED, sums += ROWS_TURNED * lanes) {
        __m256i between[ROWS_TURNED];
        BI_UNROLL for (int i = 0; i < 4; i++) {
            __m256i x[4], y[4];
            BI_UNROLL for (int j = 0; j < 4; j++) x[j] = load_pixels(sums + (4 * j + i) * lanes);
            interleave(x, y, 4);
            interleave(y, between + 4 * i, 4);
        }
        BI_UNROLL for (int i = 0; i < 4; i++) {
            __m256i x[4], y[4];
            BI_UNROLL for (int j = 0; j < 4; j++) x[j] = between[4 * j + i];
            interleave(x, y, 4);
            interleave(y, x, 4);
            BI_UNROLL for (int j = 0; j < 4; j++) {
                _mm_store_si128((__m128i *)(void *)(to[4 * i + j] + row), _mm256_castsi256_si128(x[j]));
                _mm_store_si128((__m128i *)(void *)(to[16 + 4 * i + j] + row), _mm256_extracti128_si256(x[j], 1));
            }
        }
    }
}

/* What finishing needs. */
typedef struct {
    const bi_step *step;
    const pixels_tile *tile;
    const bi_pixels *shape;
    const void *constants;       /* of the first class */
    const float *scales;
    const float *beta;           /* or NULL; as below, of the first output of the tile's first lane */
    const float *residual;       /* or NULL */
    float *floats;               /* or NULL */
    uint64_t *signs;             /* or NULL */
    uint64_t flips;
    int32_t lane;                /* of the first output */
} pixels_outputs;

/* Sums of sixteen outputs, the first of which is number c, of a pixel. */
PIXELS_INLINE __m256i sums_of(const uint8_t *turned, int32_t c, int parts)
{
    return parts == 1 ? _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)(const void *)(turned + c)))
                      : _mm256_maddubs_epi16(_mm256_load_si256((const __m256i *)(const void *)(turned + 2 * c)),
                                             _mm256_set1_epi8(1));
}

PIXELS_INLINE void finish_pixels(const pixels_outputs *o, int32_t count, bi_output output, bi_activation kind,
                                 int parts, int is_whole)
{
    const bi_step *s = o->step;
    const pixels_tile *tile = o->tile;
    const int32_t channels = s->out_c;
    size_t floats_step = (size_t)channels + (size_t)s->target_gap;
    size_t residual_step = (size_t)channels + (size_t)s->residual_gap, scale_step = (size_t)o->shape->outputs;
    const int has_signs = output == BI_SIGNS || output == BI_SHORTCUT || o->signs != NULL;
    const uint64_t inside = channels < 64 ? (UINT64_C(1) << channels) - 1 : ~UINT64_C(0);
    for (int32_t x = 0; x < count; x++) {
        const uint8_t *turned = tile->turned[x];
        int32_t lane = o->lane + x;
        uint64_t below = 0;
        if (output == BI_SIGNS) {
            const int16_t *limits = (const int16_t *)o->constants + tile->constants[lane];
            __m256i half = _mm256_set1_epi16(tile->half_odd[lane]);
            for (int32_t c = 0; c < channels; c += 32) {
                __m256i sum = _mm256_sub_epi16(sums_of(turned, c, parts), half);
                __m256i first = _mm256_cmpgt_epi16(load_pixels(limits + c), sum), second = first;
                if (c + SIXTEEN_OUTPUTS < channels) {
                    sum = _mm256_sub_epi16(sums_of(turned, c + SIXTEEN_OUTPUTS, parts), half);
                    second = _mm256_cmpgt_epi16(load_pixels(limits + c + SIXTEEN_OUTPUTS), sum);
                }
                __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
                below |= (uint64_t)(uint32_t)_mm256_movemask_epi8(both) << c;
            }
        } else {
            const float *constants = (const float *)o->constants + tile->constants[lane];
            __m256 twice = _mm256_set1_ps(tile->twice_odd[lane]);
            for (int32_t c = 0; c < channels; c += SIXTEEN_OUTPUTS) {
                __m256i sum = sums_of(turned, c, parts);
                __m256 y[2] = {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum))),
                               _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum, 1)))};
                BI_UNROLL for (int i = 0; i < 2; i++)
                    y[i] = _mm256_fmadd_ps(y[i], _mm256_set1_ps(4),    /* exact */
                                           _mm256_sub_ps(_mm256_loadu_ps(constants + c + 8 * i), twice));
                const float *scales = o->scales + c;
                size_t residual = (size_t)x * residual_step + (size_t)c;
                bi_vector_outputs sixteen = {
                    .scale = BI_SCALES_FROM(scales, scale_step),
                    .beta = o->beta != NULL ? o->beta + x : NULL,
                    .residual = output == BI_SHORTCUT || o->residual != NULL ? o->residual + residual : NULL,
                    .floats = output != BI_ANY_OUTPUT || o->floats != NULL
                                  ? o->floats + (size_t)x * floats_step + (size_t)c
                                  : NULL,
                    .left = is_whole ? (int32_t)SIXTEEN_OUTPUTS : channels - c,
                };
                below |= finish(s, &sixteen, y, 2, output, kind, 1) << c;
            }
        }
        if (output != BI_PLAIN_FLOATS && has_signs)
            o->signs[x] = (below ^ o->flips) & inside;
    }
}

#define finish_outputs BI_OWN(finish_outputs)
PIXELS_INLINE void finish_outputs(const pixels_outputs *o, int32_t count, bi_output output, bi_activation kind)
{
    int is_whole = o->step->out_c % SIXTEEN_OUTPUTS == 0;
    if (o->shape->parts == 1 && is_whole)
        finish_pixels(o, count, output, kind, 1, 1);
    else if (o->shape->parts == 1)
        finish_pixels(o, count, output, kind, 1, 0);
    else if (is_whole)
        finish_pixels(o, count, output, kind, 2, 1);
    else
        finish_pixels(o, count, output, kind, 2, 0);
}

#define OUTPUTS pixels_outputs
#include "finishes.inc"
#undef OUTPUTS

static void pixels4_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    static void (*const add[PIXEL_VECTORS])(const bi_pixels *, const uint16_t *, pixels_tile *) = {
        pixels_add_1, pixels_add_2, pixels_add_3, pixels_add_4};
    const bi_pixels *shape = s->weight;
    const char *base = s->weight;
    void (*finish_piece)(const pixels_outputs *, int32_t) = finish_of(s);
    int32_t rows = shape->parts * 2 * shape->pairs, padded = (rows + ROWS_TURNED - 1) / ROWS_TURNED * ROWS_TURNED;
    pixels_tile tile;
    memset(tile.sums, 0, (size_t)(padded * PIXEL_TILE));
    for (int32_t first = begin * s->out_w, last = end * s->out_w; first < last; first += PIXEL_TILE) {
        int32_t count = last - first < PIXEL_TILE ? last - first : (int32_t)PIXEL_TILE;
        int32_t vectors = (count + PIXEL_LANES - 1) / PIXEL_LANES, lanes = vectors * PIXEL_LANES;
        describe_tile(s, shape, first, count, &tile);
        gather_tile(s, shape, at->scratch, vectors, &tile);
        add[vectors - 1](shape, (const uint16_t *)(base + shape->tables), &tile);
        for (int32_t lane = 0; lane < count; lane += PIXEL_LANES) {
            turn_sums(tile.sums + lane, padded, lanes, tile.turned);
            size_t pixel = (size_t)(first + lane);
            bi_output_pixel p = bi_output_at(s, at, pixel, pixel);
            pixels_outputs o = {
                .step = s,
                .tile = &tile,
                .shape = shape,
                .constants = base + shape->constants,
                .scales = (const float *)(base + shape->scales),
                .beta = p.beta,
                .residual = p.residual,
                .floats = p.floats,
                .signs = p.signs,
                .flips = *(const uint64_t *)(base + shape->flips),
                .lane = lane,
            };
            finish_piece(&o, count - lane < PIXEL_LANES ? count - lane : (int32_t)PIXEL_LANES);
        }
    }
}

const bi_kernel bi_bconv2d_pixels4_avx2 = {
    .takes = pixels4_takes,
    .leaves_gaps = 1,
    .block = SIXTEEN_OUTPUTS,
    .weight_bytes = pixels4_weight_bytes,
    .pack_weight = bi_pixels_pack,
    .scratch_bytes = pixels4_scratch_bytes,
    .stage = pixels4_stage,
    .run = pixels4_run,
};

#include "../epilogue_end.inc"
#undef finish_of
#undef finish_outputs
#undef PIXELS_INLINE
#undef BI_TARGET
#undef BI_OWN
#undef V
#endif
