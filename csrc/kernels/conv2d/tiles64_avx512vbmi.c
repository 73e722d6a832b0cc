/* tiles64_avx512vbmi.c -- any convolution whose weights are numbers, as tiles of 6 to 8 pixels by up to
 * 64 outputs (tile_avx512.h).
 *
 * Pixels by 8-bit weights are multiplied as bytes, by vpdpbusd, and so are pixels by signs where there
 * are many pixels: a sign then takes a byte.  Other integers are multiplied as i16, by vpdpwssd.
 *
 * Loops: chunk of at most CHUNK pixels; block of up to four vectors of outputs of a group; part of K, at
 * most BI_RUN_STEPS steps, whose weights come from the second-level cache; tile.  The sums of a chunk lie
 * in memory between parts and go through the epilogue after the last.  Every sum is a chain in the order
 * of K, whatever the chunks and tiles: floats are those of tiles_avx2.c.
 *
 * Packed weight, each part on a multiple of 64 bytes: the runs; for every group, block, step and vector
 * of the block, 16 floats, 16 pairs of i16 or 16 fours of i8, missing outputs and elements 0; the shifts.
 */
#if defined(__x86_64__)
#include "finish_avx512.h"
#include "tile_avx512.h"

enum { CHUNK64 = 48 };

DEFINE_WIDE_TILES(wide_floats, TAKE_FLOATS)
DEFINE_WIDE_TILES(wide_words, TAKE_WORDS)
DEFINE_WIDE_TILES(wide_bytes, TAKE_BYTES)

static int tiles64_takes(const bi_step *s)
{
    enum { MANY = 64 };
    if (s->weight_type != BI_WEIGHT_BITS)
        return 1;
    return bi_conv2d_is_integer(s) && (s->flags & BI_FLAG_U8) != 0 && s->out_h * s->out_w >= MANY;
}

/* Bytes of an element of the plane. */
static size_t element64_of(const bi_step *s)
{
    if (!bi_conv2d_is_integer(s))
        return 4;
    int narrow = s->weight_type == BI_WEIGHT_I8 || s->weight_type == BI_WEIGHT_BITS;
    return narrow && (s->flags & BI_FLAG_U8) != 0 ? 1 : 2;
}

typedef struct {
    size_t element;
    size_t outputs, vectors, blocks; /* of a group */
    size_t steps; /* of a window */
    size_t weights, shifts; /* where they begin */
} tiles64_layout;

static tiles64_layout tiles64_layout_of(const bi_step *s)
{
    tiles64_layout l = {.element = element64_of(s), .outputs = (size_t)(s->out_c / s->groups)};
    l.vectors = (l.outputs + 15) / 16;
    l.blocks = (l.vectors + BI_WIDE_VECTORS - 1) / BI_WIDE_VECTORS;
    l.steps = bi_runs_shape_of(s, l.element).steps;
    l.weights = bi_conv2d_align(bi_runs_count(s, l.element) * sizeof(bi_run));
    l.shifts = l.weights + (size_t)s->groups * l.vectors * l.steps * 64;
    return l;
}

/* The vector of a group that begins block number `block`: blocks are about equally wide. */
static size_t first_vector(const tiles64_layout *l, size_t block)
{
    return block * l->vectors / l->blocks;
}

static size_t tiles64_weight_bytes(const bi_step *s)
{
    return tiles64_layout_of(s).shifts + bi_conv2d_shift_bytes(s);
}

/* Element `i` of 16 outputs' steps. */
static void put_number(size_t element, float weight, void *step, size_t i)
{
    if (element == 4)
        ((float *)step)[i] = weight;
    else if (element == 2)
        ((int16_t *)step)[i] = (int16_t)weight;
    else
        ((int8_t *)step)[i] = (int8_t)weight;
}

/* The weights of 16 outputs, the first of them `output`, `count` of which there are; a step of them is
 * `apart` bytes from the next. */
static void pack_vector(const bi_step *s, const void *canonical, size_t output, size_t count,
                        size_t apart, unsigned char *to)
{
    size_t element = element64_of(s), per_step = 4 / element;
    size_t channels = (size_t)(s->in_c / s->groups);
    bi_runs_shape r = bi_runs_shape_of(s, element);
    for (size_t row = 0; row < r.rows; row++, to += r.steps / r.rows * apart)
        for (size_t i = 0; i < r.elements; i++) {
            size_t k = row * r.elements + i;
            for (size_t lane = 0; lane < count; lane++)
                put_number(
                    element,
                    bi_conv2d_weight_at(s, canonical, output + lane, k / channels, k % channels),
                    to + i / per_step * apart, lane * per_step + i % per_step);
        }
}

static void tiles64_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    tiles64_layout l = tiles64_layout_of(s);
    unsigned char *to = (unsigned char *)packed + l.weights;
    memset(packed, 0, l.shifts);
    bi_runs_write(s, l.element, packed);
    for (size_t group = 0; group < (size_t)s->groups; group++)
        for (size_t block = 0; block < l.blocks; block++) {
            size_t first = first_vector(&l, block), end = first_vector(&l, block + 1);
            for (size_t v = first; v < end; v++) {
                size_t left = l.outputs - v * 16;
                pack_vector(s, canonical, group * l.outputs + v * 16, left < 16 ? left : 16,
                            (end - first) * 64, to + (v - first) * 64);
            }
            to += (end - first) * l.steps * 64;
        }
    bi_conv2d_pack_shifts(s, canonical, (unsigned char *)packed + l.shifts);
}

static size_t tiles64_scratch_bytes(const bi_step *s) { return bi_plane_bytes(s, element64_of(s)); }

static void tiles64_stage(const bi_step *s, const bi_pointers *at)
{
    bi_plane_stage(s, element64_of(s), at);
}

/* Pixels that are computed together. */
typedef struct {
    size_t first, count;
    const unsigned char *origin[CHUNK64]; /* of the first tap, in the first group */
    const float *shift[CHUNK64];
    float sums[CHUNK64 * BI_WIDE_VECTORS * 16]; /* or i32 */
} chunk64;

static void begin_chunk64(const bi_step *s, const tiles64_layout *l, const bi_pointers *at,
                          chunk64 *c)
{
    bi_plane p = bi_plane_of(s, l->element);
    const unsigned char *source = p.staged ? at->scratch : at->source;
    const unsigned char *shifts = (const unsigned char *)s->weight + l->shifts;
    size_t width = (size_t)s->out_w, oy = c->first / width, ox = c->first % width;
    for (size_t i = 0; i < c->count; i++) {
        c->origin[i] =
            source + oy * (size_t)s->stride_h * p.row + ox * (size_t)s->stride_w * p.pixel;
        if (s->offset != NULL)
            c->shift[i] = bi_conv2d_shift_at(s, shifts, (int32_t)oy, (int32_t)ox);
        if (++ox == width)
            oy++, ox = 0;
    }
}

/* The tiles of a chunk over some runs; the sums go on from before unless these are the first.  `target`
 * is where the floats of the first pixel will go, or NULL: writing begins with fetching the old contents,
 * and that takes long. */
static void sum_tiles64(const bi_step *s, bi_wide_tile *const *tile, size_t vectors, chunk64 *c,
                        size_t group, const void *weight, const bi_run *run, const bi_run *end,
                        int first, const float *target)
{
    size_t most = bi_wide_pixels(vectors), tiles = (c->count + most - 1) / most, done = 0;
    for (; tiles > 0; tiles--) {
        /* All about equal: small tiles wait for sums. */
        size_t count = (c->count - done + tiles - 1) / tiles;
        const unsigned char *pixel[BI_WIDE_PIXELS];
        for (size_t i = 0; i < BI_WIDE_PIXELS; i++)
            pixel[i] = c->origin[done + (i < count ? i : 0)] + group;
        for (size_t i = 0; target != NULL && i < count; i++)
            for (size_t v = 0; v < vectors; v++)
                __builtin_prefetch(target + (done + i) * (size_t)s->out_c + v * 16, 1, 2);
        float *sums = c->sums + done * vectors * 16;
        tile[count - 1](pixel, weight, run, end, first ? NULL : sums, sums);
        done += count;
    }
}

/* All of K for a block of outputs whose weights begin at `weight`. */
static void sum_block64(const bi_step *s, const tiles64_layout *l, size_t vectors, chunk64 *c,
                        size_t group, const unsigned char *weight, const float *target)
{
    bi_wide_tile *const(*tiles)[BI_WIDE_PIXELS] = l->element == 4   ? wide_floats
                                                  : l->element == 2 ? wide_words
                                                                    : wide_bytes;
    const bi_run *run = s->weight, *end = run + bi_runs_count(s, l->element);
    for (int first = 1; run < end; first = 0) {
        const bi_run *part = run;
        size_t steps = 0;
        for (; run < end; run++) {
            size_t more = (size_t)(run->end - run->begin) / 4;
            if (steps + more > BI_RUN_STEPS)
                break;
            steps += more;
        }
        sum_tiles64(s, tiles[vectors - 1], vectors, c, group, weight, part, run, first,
                    run == end ? target : NULL);
        weight += steps * vectors * 64;
    }
}

/* The outputs of a block, from number `output` on, `count` of them, through the epilogue. */
static void finish_block64(const bi_step *s, const bi_pointers *at, const chunk64 *c,
                           size_t vectors, size_t output, size_t count)
{
    for (size_t v = 0, now; v < vectors; v += now) {
        now = vectors - v >= 4 ? 4 : vectors - v >= 2 ? 2 : 1;
        size_t left = count - v * 16;
        bi_plane_sums sums = {
            .step = s,
            .at = at,
            .first = c->first,
            .count = c->count,
            .output = (int32_t)(output + v * 16),
            .outputs = (int32_t)(left < now * 16 ? left : now * 16),
            .sums = c->sums + v * 16,
            .apart = vectors * 16,
            .shift = s->offset != NULL ? c->shift : NULL,
        };
        if (now == 4)
            bi_finish_64_avx512(&sums);
        else if (now == 2)
            bi_finish_32_avx512(&sums);
        else
            bi_finish_pixels_conv2d_avx512(&sums);
    }
}

static void tiles64_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    tiles64_layout l = tiles64_layout_of(s);
    size_t group_bytes = bi_plane_of(s, l.element).group;
    size_t first = (size_t)begin * (size_t)s->out_w, last = (size_t)end * (size_t)s->out_w;
    size_t chunks = (last - first + CHUNK64 - 1) / CHUNK64;
    for (; chunks > 0; chunks--) {
        chunk64 c;
        c.first = first;
        c.count = (last - first + chunks - 1) / chunks;
        begin_chunk64(s, &l, at, &c);
        const unsigned char *weight = (const unsigned char *)s->weight + l.weights;
        for (size_t group = 0; group < (size_t)s->groups; group++)
            for (size_t block = 0; block < l.blocks; block++) {
                size_t from = first_vector(&l, block), to = first_vector(&l, block + 1);
                size_t output = group * l.outputs + from * 16;
                size_t left = l.outputs - from * 16, vectors = to - from;
                const float *target = NULL;
                if (!bi_target_is_signs(s))
                    target = (const float *)at->target + first * (size_t)s->out_c + output;
                sum_block64(s, &l, vectors, &c, group * group_bytes, weight, target);
                finish_block64(s, at, &c, vectors, output,
                               left < vectors * 16 ? left : vectors * 16);
                weight += vectors * l.steps * 64;
            }
        first += c.count;
    }
}

#define TILES64_AVX512VBMI                       \
    {                                            \
        .takes = tiles64_takes,                  \
        .block = 16 * BI_WIDE_VECTORS,           \
        .weight_bytes = tiles64_weight_bytes,    \
        .pack_weight = tiles64_pack_weight,      \
        .scratch_bytes = tiles64_scratch_bytes,  \
        .stage = tiles64_stage,                  \
        .run = tiles64_run,                      \
    }
const bi_kernel bi_conv2d_tiles64_avx512vbmi = TILES64_AVX512VBMI;
const bi_kernel bi_dense_tiles64_avx512vbmi = TILES64_AVX512VBMI;
#endif
