/* tiles_avx2.c -- any convolution, as tiles of 6 pixels by 16 outputs (tile_avx2.h).
 *
 * Loops: chunk of at most CHUNK pixels; block of 16 outputs of a group; part of K, at most
 * BI_RUN_STEPS steps, whose weights (16 KiB) stay in the first-level cache; tile.  The sums of a
 * chunk lie in memory between parts and go through the epilogue after the last.  Every sum is a
 * chain in the order of K, whatever the chunks and tiles.
 *
 * Packed weight, each part on a multiple of 64 bytes: the runs; for every group, block of 16
 * outputs and step, 16 floats, 16 pairs of i16, 16 bits or 16 pairs of bits, missing outputs and
 * elements 0; the shifts.
 */
#if defined(__x86_64__)
#include "expand_avx2.h"
#include "finish_avx2.h"
#include "tile_avx2.h"
#include "tiles_avx2.h"

enum { CHUNK = 120 };

DEFINE_TILES(tile_floats, FLOATS)
DEFINE_TILES(tile_integers, INTEGERS)

/* Bytes of an element of the plane. */
static size_t element_of(const bi_step *s) { return bi_conv2d_is_integer(s) ? 2 : 4; }

typedef struct {
    size_t outputs, blocks;    /* of a group */
    size_t step_bytes;         /* of a packed step */
    size_t weights, shifts;    /* where they begin */
} tiles_layout;

static tiles_layout tiles_layout_of(const bi_step *s)
{
    tiles_layout l = {.outputs = (size_t)(s->out_c / s->groups)};
    l.blocks = (l.outputs + 15) / 16;
    l.step_bytes = 64;
    if (s->weight_type == BI_WEIGHT_BITS)
        l.step_bytes = bi_conv2d_is_integer(s) ? 4 : 2;
    l.weights = bi_conv2d_align(bi_runs_count(s, element_of(s)) * sizeof(bi_run));
    l.shifts = l.weights + bi_conv2d_align((size_t)s->groups * l.blocks *
                                           bi_runs_shape_of(s, element_of(s)).steps * l.step_bytes);
    return l;
}

size_t bi_tiles_weight_bytes(const bi_step *s)
{
    return tiles_layout_of(s).shifts + bi_conv2d_shift_bytes(s);
}

/* Put one weight, `element` (0 or, of integers, 1) of a step and lane. */
static void put_weight(const bi_step *s, float weight, unsigned char *step, size_t lane,
                       size_t element)
{
    size_t elements = bi_conv2d_is_integer(s) ? 2 : 1, i = lane * elements + element;
    if (s->weight_type == BI_WEIGHT_BITS)
        step[i / 8] = (unsigned char)(step[i / 8] | (unsigned)(weight < 0) << (i % 8));
    else if (elements == 2)
        ((int16_t *)step)[i] = (int16_t)weight;
    else
        ((float *)step)[i] = weight;
}

void bi_tiles_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    tiles_layout l = tiles_layout_of(s);
    bi_runs_shape r = bi_runs_shape_of(s, element_of(s));
    size_t channels = (size_t)(s->in_c / s->groups);
    size_t per_step = bi_conv2d_is_integer(s) ? 2 : 1, row_steps = r.steps / r.rows;
    memset(packed, 0, l.shifts);
    bi_runs_write(s, element_of(s), packed);
    unsigned char *to = (unsigned char *)packed + l.weights;
    for (size_t first = 0; first < (size_t)s->groups * l.blocks; first++) {
        size_t o = first / l.blocks * l.outputs + first % l.blocks * 16;
        size_t count = l.outputs - first % l.blocks * 16 < 16 ? l.outputs % 16 : 16;
        for (size_t row = 0; row < r.rows; row++, to += row_steps * l.step_bytes)
            for (size_t i = 0; i < r.elements; i++) {
                size_t k = row * r.elements + i;
                unsigned char *step = to + i / per_step * l.step_bytes;
                for (size_t lane = 0; lane < count; lane++)
                    put_weight(
                        s, bi_conv2d_weight_at(s, canonical, o + lane, k / channels, k % channels),
                        step, lane, i % per_step);
            }
    }
    bi_conv2d_pack_shifts(s, canonical, (unsigned char *)packed + l.shifts);
}

size_t bi_tiles_scratch_bytes(const bi_step *s) { return bi_plane_bytes(s, element_of(s)); }

void bi_tiles_stage(const bi_step *s, const bi_pointers *at)
{
    bi_plane_stage(s, element_of(s), at);
}

/* Pixels that are computed together. */
typedef struct {
    bi_tile *sum_tile;
    size_t count, tiles;
    const unsigned char *origin[CHUNK];    /* of the first tap, in the first group */
    const float *shift[CHUNK];
    float sums[CHUNK * 16];                /* or i32 */
} chunk;

static void begin_chunk(const bi_step *s, const bi_pointers *at, size_t first, size_t count,
                        chunk *c)
{
    bi_plane p = bi_plane_of(s, element_of(s));
    const unsigned char *source = p.staged ? at->scratch : at->source;
    const unsigned char *shifts = (const unsigned char *)s->weight + tiles_layout_of(s).shifts;
    size_t width = (size_t)s->out_w, oy = first / width, ox = first % width;
    c->count = count;
    c->tiles = (count + BI_TILE_PIXELS - 1) / BI_TILE_PIXELS;
    for (size_t i = 0; i < count; i++) {
        c->origin[i] =
            source + oy * (size_t)s->stride_h * p.row + ox * (size_t)s->stride_w * p.pixel;
        if (s->offset != NULL)
            c->shift[i] = bi_conv2d_shift_at(s, shifts, (int32_t)oy, (int32_t)ox);
        if (++ox == width)
            oy++, ox = 0;
    }
}

/* The tiles of a chunk over some runs; the sums go on from before unless these are the first. */
BI_TARGET_avx2 static void sum_runs(const bi_step *s, chunk *c, size_t group, const void *weight,
                                    const bi_run *run, const bi_run *end, int first,
                                    const float *target)
{
    static const float zeros[BI_TILE_PIXELS * 16] = {0};
    size_t least = c->count / c->tiles, more = c->count % c->tiles, done = 0;
    for (size_t tile = 0; tile < c->tiles; tile++) {
        size_t count = least + (tile < more);    /* all about equal: small tiles wait for sums */
        const unsigned char *pixel[BI_TILE_PIXELS];
        for (size_t i = 0; i < BI_TILE_PIXELS; i++)
            pixel[i] = c->origin[done + (i < count ? i : 0)] + group;
        for (size_t i = 0; target != NULL && i < count; i++)
            __builtin_prefetch(target + (done + i) * (size_t)s->out_c, 1, 2);
        float *sums = c->sums + done * 16;
        c->sum_tile(count, pixel, weight, run, end, first ? zeros : sums, sums);
        done += count;
    }
}

/* All of K for a block of outputs whose weights begin at `weight`; `group` is where the group
 * begins in the plane, `target` where the floats of the first pixel will go, or NULL: writing begins
 * with fetching the old contents, and that takes long. */
BI_TARGET_avx2 static void sum_block(const bi_step *s, chunk *c, size_t group,
                                     const unsigned char *weight, size_t step_bytes,
                                     const float *target)
{
    _Alignas(64) float expanded[BI_RUN_STEPS * 16];
    const bi_run *run = s->weight, *end = run + bi_runs_count(s, element_of(s));
    for (int first = 1; run < end; first = 0) {
        const bi_run *part = run;
        size_t steps = 0;
        for (; run < end; run++) {
            size_t more = (size_t)(run->end - run->begin) / 4;
            if (steps + more > BI_RUN_STEPS)
                break;
            if (step_bytes == 2)
                bi_expand_floats((const uint16_t *)weight + steps, more, expanded + steps * 16);
            if (step_bytes == 4)
                bi_expand_integers((const uint32_t *)weight + steps, more, run->odd != 0,
                                   (int16_t *)(expanded + steps * 16));
            steps += more;
        }
        sum_runs(s, c, group, step_bytes == 64 ? (const void *)weight : expanded, part, run, first,
                 run == end ? target : NULL);
        weight += steps * step_bytes;
    }
}

BI_TARGET_avx2 void bi_tiles_run(const bi_step *s, const bi_pointers *at, int32_t begin,
                                 int32_t end, bi_tile *tile)
{
    tiles_layout l = tiles_layout_of(s);
    bi_plane p = bi_plane_of(s, element_of(s));
    size_t block_bytes = bi_runs_shape_of(s, element_of(s)).steps * l.step_bytes;
    size_t first = (size_t)begin * (size_t)s->out_w, last = (size_t)end * (size_t)s->out_w;
    size_t chunks = (last - first + CHUNK - 1) / CHUNK;
    for (; chunks > 0; chunks--) {
        chunk c;
        c.sum_tile = tile;
        size_t count = (last - first + chunks - 1) / chunks;
        begin_chunk(s, at, first, count, &c);
        const unsigned char *weight = (const unsigned char *)s->weight + l.weights;
        for (size_t group = 0; group < (size_t)s->groups; group++)
            for (size_t o = 0; o < l.outputs; o += 16, weight += block_bytes) {
                const float *target = NULL;
                if (!bi_target_is_signs(s))
                    target = (const float *)at->target + first * (size_t)s->out_c +
                             group * l.outputs + o;
                sum_block(s, &c, group * p.group, weight, l.step_bytes, target);
                bi_plane_sums sums = {
                    .step = s, .at = at, .first = first, .count = count,
                    .output = (int32_t)(group * l.outputs + o),
                    .outputs = (int32_t)(l.outputs - o < 16 ? l.outputs - o : 16),
                    .sums = c.sums, .apart = 16, .shift = s->offset != NULL ? c.shift : NULL,
                };
                bi_finish_pixels_conv2d_avx2(&sums);
            }
        first += count;
    }
    _mm256_zeroupper();
}

static void tiles_avx2_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    bi_tiles_run(s, at, begin, end, bi_conv2d_is_integer(s) ? tile_integers : tile_floats);
}

#define TILES_AVX2                                   \
    {                                            \
        .block = BI_TILE_OUTPUTS,                \
        .weight_bytes = bi_tiles_weight_bytes,   \
        .pack_weight = bi_tiles_pack_weight,     \
        .scratch_bytes = bi_tiles_scratch_bytes, \
        .stage = bi_tiles_stage,                 \
        .run = tiles_avx2_run,                              \
    }
const bi_kernel bi_conv2d_tiles_avx2 = TILES_AVX2;
const bi_kernel bi_dense_tiles_avx2 = TILES_AVX2;
#endif
