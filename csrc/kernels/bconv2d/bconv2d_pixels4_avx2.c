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
#include "planes_avx2.h"

#define BI_TARGET BI_TARGET_avx2
#define BI_OWN(name) name##_pixels4
#define V(operation) bi_v_##operation##_avx2
#include "../epilogue_body.inc"

enum {
    PIXEL_ROWS = PIXEL_PARTS * PIXEL_OUTPUTS, /* of sums */
    ROWS_TURNED = 16, /* at once */
    PIXELS_AHEAD = 8, /* whose floats are fetched from the second-level cache */
    SIXTEEN_OUTPUTS = 16, /* of scales, too */
};

/* A tile of outputs. */
typedef struct {
    uint8_t entries[LONGEST_PART * PIXEL_TILE]
        __attribute__((aligned(64))); /* of a part: [entry][lane] */
    uint8_t sums[PIXEL_ROWS * PIXEL_TILE] __attribute__((aligned(64))); /* [output][part][lane] */
    uint8_t turned[PIXEL_LANES][PIXEL_ROWS]
        __attribute__((aligned(64))); /* of one vector of pixels */
    /* Of an output pixel: where the constants of its class begin, beyond which vectors write; and what of
     * PA is not in them, PA / 2 for thresholds, else 2 PA. */
    int32_t constants[PIXEL_TILE + PIXEL_LANES];
    int16_t odd[PIXEL_TILE];
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
    size_t planes = (size_t)shape.row_phases * ((size_t)(s->kernel_w * shape.entries) + 1);
    return planes * shape.plane + 2 * laid_bytes(&shape);
}

/* Note which constants `count` outputs take, the first of which is number `first`. */
BI_TARGET_avx2 static void find_constants(const bi_step *s, const bi_pixels *shape, int32_t first, int32_t count,
                                          pixels_tile *tile)
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
            store_pixels(tile->constants + lane + i, _mm256_add_epi32(column, of_row));
        }
        lane += left;
    }
}

/* Gather the entries from number `begin` up to `end` of the windows of the outputs from number `first` on. */
PIXELS_INLINE void gather_entries(const bi_step *s, const bi_pixels *shape, const uint8_t *planes, int32_t first,
                                  int32_t begin, int32_t end, uint8_t *to, int vectors)
{
    const int32_t in_row = s->kernel_w * shape->entries;
    const size_t plane = shape->plane;
    for (int32_t ky = begin / in_row; ky * in_row < end; ky++) {
        int32_t e = begin > ky * in_row ? begin - ky * in_row : 0;
        int32_t row_end = end - ky * in_row < in_row ? end - ky * in_row : in_row;
        int32_t phase = ky * s->dilation_h % s->stride_h, row = ky * s->dilation_h / s->stride_h;
        const uint8_t *from = planes + (size_t)(phase * in_row + e) * plane + (size_t)(first + row * s->out_w);
        for (; e < row_end; e++, from += plane, to += vectors * PIXEL_LANES)
            BI_UNROLL for (int v = 0; v < vectors; v++)
                _mm256_store_si256((__m256i *)(void *)(to + v * PIXEL_LANES), load_pixels(from + v * PIXEL_LANES));
    }
}

/* Count the odd entries of the windows of the outputs from number `first` on. */
PIXELS_INLINE void count_odd_entries(const bi_step *s, const bi_pixels *shape, const uint8_t *planes, int32_t first,
                                     pixels_tile *tile, int vectors)
{
    const size_t plane = shape->plane;
    const uint8_t *odd_planes = planes + (size_t)(shape->row_phases * s->kernel_w * shape->entries) * plane;
    __m256i odd[PIXEL_VECTORS];
    BI_UNROLL for (int v = 0; v < vectors; v++) odd[v] = _mm256_setzero_si256();
    for (int32_t ky = 0; ky < s->kernel_h; ky++) {
        int32_t phase = ky * s->dilation_h % s->stride_h, row = ky * s->dilation_h / s->stride_h;
        const uint8_t *from = odd_planes + (size_t)phase * plane + (size_t)(first + row * s->out_w);
        BI_UNROLL for (int v = 0; v < vectors; v++)
            odd[v] = _mm256_add_epi8(odd[v], load_pixels(from + v * PIXEL_LANES));
    }
    /* Thresholds for an odd PA follow those for an even one. */
    const __m256i outputs = _mm256_set1_epi32(shape->outputs), one = _mm256_set1_epi8(1);
    BI_UNROLL for (int v = 0; v < vectors; v++)
        BI_UNROLL for (int i = 0; i < 2; i++) {
            __m128i bytes = i == 0 ? _mm256_castsi256_si128(odd[v]) : _mm256_extracti128_si256(odd[v], 1);
            __m256i words = _mm256_cvtepu8_epi16(bytes);
            int32_t lane = v * PIXEL_LANES + 16 * i;
            if (s->threshold == NULL) {
                store_pixels(tile->odd + lane, _mm256_add_epi16(words, words));
                continue;
            }
            store_pixels(tile->odd + lane, _mm256_srli_epi16(words, 1));
            __m128i is_odd = _mm_cmpeq_epi8(_mm_and_si128(bytes, _mm256_castsi256_si128(one)),
                                            _mm256_castsi256_si128(one));
            BI_UNROLL for (int j = 0; j < 2; j++, is_odd = _mm_srli_si128(is_odd, 8)) {
                int32_t *constants = tile->constants + lane + 8 * j;
                __m256i more = _mm256_and_si256(_mm256_cvtepi8_epi32(is_odd), outputs);
                store_pixels(constants, _mm256_add_epi32(load_pixels(constants), more));
            }
        }
}

/* Add up all entries for all pairs of outputs. */
PIXELS_INLINE void add_pairs(const bi_step *s, const bi_pixels *shape, const uint8_t *planes, int32_t first,
                             pixels_tile *tile, int vectors)
{
    const int32_t lanes = vectors * PIXEL_LANES, parts = shape->parts, pairs = shape->pairs;
    const uint8_t *nibbles = bi_lookup_nibbles[0];
    const uint16_t *tables = (const uint16_t *)(const void *)((const char *)s->weight + shape->tables);
    for (int32_t part = 0, begin = 0; part < parts; begin += shape->part_entries[part++]) {
        size_t count = (size_t)shape->part_entries[part];
        gather_entries(s, shape, planes, first, begin, begin + shape->part_entries[part], tile->entries, vectors);
        uint8_t *to = tile->sums + part * lanes;
        for (int32_t pair = 0; pair < pairs; pair++, tables += count, to += 2 * parts * lanes) {
            bi_sums_avx2 sums;
            BI_UNROLL for (int v = 0; v < vectors; v++)
                sums.f[v] = sums.h[v] = _mm256_setzero_si256();
            if (vectors == 4)
                bi_add_entries_4(tables, tables, tile->entries, count, nibbles, &sums);
            else if (vectors == 3)
                bi_add_entries_3(tables, tables, tile->entries, count, nibbles, &sums);
            else if (vectors == 2)
                bi_add_entries_2(tables, tables, tile->entries, count, nibbles, &sums);
            else
                bi_add_entries_1(tables, tables, tile->entries, count, nibbles, &sums);
            BI_UNROLL for (int v = 0; v < vectors; v++) {
                __m256i first, second;
                bi_separate_avx2(sums.f[v], sums.h[v], &first, &second);
                store_pixels(to + v * PIXEL_LANES, first);
                store_pixels(to + parts * lanes + v * PIXEL_LANES, second);
            }
        }
    }
}

#define ADD_PAIRS(vectors)                                                                               \
    BI_TARGET_avx2 static __attribute__((noinline)) void pixels_add_##vectors(                           \
        const bi_step *s, const uint8_t *planes, int32_t first, pixels_tile *tile)                       \
    {                                                                                                    \
        const bi_pixels shape = *(const bi_pixels *)s->weight;    /* which no store can change */        \
        count_odd_entries(s, &shape, planes, first, tile, vectors);                                      \
        add_pairs(s, &shape, planes, first, tile, vectors);                                              \
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
            interleave_bytes(x, y, 4);
            interleave_bytes(y, between + 4 * i, 4);
        }
        BI_UNROLL for (int i = 0; i < 4; i++) {
            __m256i x[4], y[4];
            BI_UNROLL for (int j = 0; j < 4; j++) x[j] = between[4 * j + i];
            interleave_bytes(x, y, 4);
            interleave_bytes(y, x, 4);
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
    const int16_t *constants;    /* of the first class */
    const float *scales;
    const float *beta;           /* or NULL; as below, of the first output of the tile's first lane */
    const float *residual;       /* or NULL */
    float *floats;               /* or NULL */
    uint64_t *signs;             /* or NULL */
    uint64_t flips;
    int32_t lane;                /* of the first output */
} pixels_outputs;

/* Some times (a constant, 1 or 4) the sums of sixteen outputs, the first of which is number c, of a pixel. */
PIXELS_INLINE __m256i sums_of(const uint8_t *turned, int32_t c, int parts, int times)
{
    if (parts == 2)
        return _mm256_maddubs_epi16(load_pixels(turned + 2 * c), _mm256_set1_epi8((char)times));
    __m256i sums = _mm256_cvtepu8_epi16(_mm_load_si128((const __m128i *)(const void *)(turned + c)));
    return times == 4 ? _mm256_slli_epi16(sums, 2) : sums;
}

/* Which of sixteen outputs of a pixel are below their thresholds: words of ones. */
PIXELS_INLINE __m256i words_below_of(const pixels_outputs *o, const pixels_tile *tile, int32_t x, int32_t c, int parts)
{
    const int16_t *limits = o->constants + tile->constants[o->lane + x];
    __m256i half = _mm256_set1_epi16(tile->odd[o->lane + x]);
    return _mm256_cmpgt_epi16(load_pixels(limits + c), _mm256_sub_epi16(sums_of(tile->turned[x], c, parts, 1), half));
}

/* Bits of two vectors of words of ones. */
PIXELS_INLINE uint64_t bits_of(__m256i first, __m256i second)
{
    __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
    return (uint32_t)_mm256_movemask_epi8(both);
}

/* Finish signs of sums of `sixteens` times sixteen outputs. */
PIXELS_INLINE void finish_signs_of(const pixels_outputs *o, int32_t count, int parts, int sixteens)
{
    const int32_t channels = o->step->out_c;
    const uint64_t inside = channels < 64 ? (UINT64_C(1) << channels) - 1 : ~UINT64_C(0), flips = o->flips;
    uint64_t *signs = o->signs;
    if (sixteens == 1) {    /* pixels by twos: the tile holds whole vectors of them */
        for (int32_t x = 0; x < count; x += 2) {
            uint64_t two = bits_of(words_below_of(o, o->tile, x, 0, parts), words_below_of(o, o->tile, x + 1, 0, parts));
            signs[x] = (two ^ flips) & inside & 0xffff;
            if (x + 1 < count)
                signs[x + 1] = (two >> 16 ^ flips) & inside;
        }
        return;
    }
    for (int32_t x = 0; x < count; x++) {
        __m256i word[4];
        BI_UNROLL for (int i = 0; i < 4; i++)
            word[i] = i < sixteens ? words_below_of(o, o->tile, x, i * SIXTEEN_OUTPUTS, parts) : word[2];
        uint64_t below = bits_of(word[0], word[1]);
        if (sixteens > 2)
            below |= bits_of(word[2], word[3]) << 32;
        signs[x] = (below ^ flips) & inside;
    }
}

PIXELS_INLINE void finish_turned(const pixels_outputs *o, int32_t count, bi_output output, bi_activation kind,
                                 int parts, int is_whole)
{
    const bi_step *s = o->step;
    const pixels_tile *tile = o->tile;
    const int32_t channels = s->out_c;
    size_t floats_step = (size_t)channels + (size_t)s->target_gap;
    size_t residual_step = (size_t)channels + (size_t)s->residual_gap;
    const int has_signs = output == BI_SHORTCUT || o->signs != NULL;
    const uint64_t inside = channels < 64 ? (UINT64_C(1) << channels) - 1 : ~UINT64_C(0);
    if (output == BI_SIGNS) {
        switch ((channels + SIXTEEN_OUTPUTS - 1) / SIXTEEN_OUTPUTS) {
        case 1: finish_signs_of(o, count, parts, 1); return;
        case 2: finish_signs_of(o, count, parts, 2); return;
        case 3: finish_signs_of(o, count, parts, 3); return;
        default: finish_signs_of(o, count, parts, 4); return;
        }
    }
    for (int32_t x = 0; x < count; x++) {
        const uint8_t *turned = tile->turned[x];
        const int16_t *constants = o->constants + tile->constants[o->lane + x];
        const __m256i twice = _mm256_set1_epi16(tile->odd[o->lane + x]);
        uint64_t below = 0;
        for (int32_t c = 0; c < channels; c += SIXTEEN_OUTPUTS) {
            __m256i dot = _mm256_add_epi16(sums_of(turned, c, parts, 4), load_pixels(constants + c));
            dot = _mm256_sub_epi16(dot, twice);
            __m256 y[2] = {_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(dot))),
                           _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(dot, 1)))};
            const float *scales = o->scales + c * BI_SCALES;
            size_t residual = (size_t)x * residual_step + (size_t)c;
            bi_vector_outputs sixteen = {
                .scale = BI_SCALES_FROM(scales, SIXTEEN_OUTPUTS),
                .beta = o->beta != NULL ? o->beta + x : NULL,
                .residual = output == BI_SHORTCUT || o->residual != NULL ? o->residual + residual : NULL,
                .floats = output != BI_ANY_OUTPUT || o->floats != NULL
                              ? o->floats + (size_t)x * floats_step + (size_t)c
                              : NULL,
                .left = is_whole ? (int32_t)SIXTEEN_OUTPUTS : channels - c,
            };
            if (sixteen.residual != NULL)
                __builtin_prefetch(sixteen.residual + PIXELS_AHEAD * residual_step);
            if (sixteen.floats != NULL)
                __builtin_prefetch(sixteen.floats + PIXELS_AHEAD * floats_step, 1);
            below |= finish(s, &sixteen, y, 2, output, kind, 1) << c;
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
        finish_turned(o, count, output, kind, 1, 1);
    else if (o->shape->parts == 1)
        finish_turned(o, count, output, kind, 1, 0);
    else if (is_whole)
        finish_turned(o, count, output, kind, 2, 1);
    else
        finish_turned(o, count, output, kind, 2, 0);
}

#define OUTPUTS pixels_outputs
#include "finishes.inc"
#undef OUTPUTS

static void pixels4_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    static void (*const add[PIXEL_VECTORS])(const bi_step *, const uint8_t *, int32_t, pixels_tile *) = {
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
        find_constants(s, shape, first, count, &tile);
        add[vectors - 1](s, at->scratch, first, &tile);
        for (int32_t lane = 0; lane < count; lane += PIXEL_LANES) {
            turn_sums(tile.sums + lane, padded, lanes, tile.turned);
            size_t pixel = (size_t)(first + lane);
            bi_output_pixel p = bi_output_at(s, at, pixel, pixel);
            pixels_outputs o = {
                .step = s,
                .tile = &tile,
                .shape = shape,
                .constants = (const int16_t *)(base + shape->constants),
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
#undef BI_TARGET
#undef BI_OWN
#undef V
#endif
