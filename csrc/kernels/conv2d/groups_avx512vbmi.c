/* groups_avx512vbmi.c -- convolutions of floats in groups of 4 or 8 outputs: the lanes of a vector are
 * those of four or two groups, a *bundle*, so that none is empty.
 *
 * Lane l is of group l % together, so that what a step broadcasts is one number of each group, side by
 * side: the plane is staged as [bundle][row][column][channel of the group][group of the bundle].  A tile
 * is up to 8 pixels by one vector (tile_avx512.h); its sums are put in the order of the outputs before
 * the epilogue.  Every sum is a chain in the order of K: floats are those of tiles_avx2.c.
 *
 * Packed weight: the runs; on a multiple of 64 bytes, for every bundle and step, 16 floats.
 */
#if defined(__x86_64__)
#include "finish_avx512.h"
#include "tile_avx512.h"

enum { GROUPS_CHUNK = 64 };

DEFINE_GROUP_TILES(two_groups, TAKE_2_FLOATS, 8)
DEFINE_GROUP_TILES(four_groups, TAKE_4_FLOATS, 16)

static int groups_takes(const bi_step *s)
{
    int32_t outputs = s->out_c / s->groups;
    return !bi_conv2d_is_integer(s) && s->table == NULL && s->weight_type != BI_WEIGHT_BITS &&
           (outputs == 4 || outputs == 8) && s->groups % (16 / outputs) == 0;
}

typedef struct {
    size_t inputs, outputs; /* of a group */
    size_t together, bundles; /* groups of a bundle */
    size_t height, width; /* of the plane */
    size_t pixel, row, bundle; /* bytes of the plane from one to the next */
    size_t runs, run_steps;
    size_t weights; /* where they begin */
} groups_layout;

static groups_layout groups_layout_of(const bi_step *s)
{
    bi_plane p = bi_plane_of(s, 4);
    groups_layout l = {
        .inputs = (size_t)(s->in_c / s->groups),
        .outputs = (size_t)(s->out_c / s->groups),
        .height = p.height,
        .width = p.width,
    };
    l.together = 16 / l.outputs;
    l.bundles = (size_t)s->groups / l.together;
    l.pixel = l.inputs * l.together * 4;
    l.row = l.width * l.pixel;
    l.bundle = l.height * l.row;
    l.runs = s->dilation_w == 1 ? (size_t)s->kernel_h : bi_conv2d_taps(s);
    l.run_steps = bi_conv2d_taps(s) / l.runs * l.inputs;
    l.weights = bi_conv2d_align(l.runs * sizeof(bi_run));
    return l;
}

static size_t groups_weight_bytes(const bi_step *s)
{
    groups_layout l = groups_layout_of(s);
    return l.weights + l.bundles * l.runs * l.run_steps * 64;
}

static void groups_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    groups_layout l = groups_layout_of(s);
    memset(packed, 0, l.weights);
    bi_run *run = packed;
    size_t columns = l.runs / (size_t)s->kernel_h;
    for (size_t i = 0; i < l.runs; i++) {
        size_t begin = i / columns * (size_t)s->dilation_h * l.row +
                       i % columns * (size_t)s->dilation_w * l.pixel;
        run[i].begin = (int64_t)begin;
        run[i].end = (int64_t)(begin + l.run_steps * l.together * 4);
    }
    float *to = (float *)((unsigned char *)packed + l.weights);
    for (size_t bundle = 0; bundle < l.bundles; bundle++)
        for (size_t tap = 0; tap < bi_conv2d_taps(s); tap++)
            for (size_t c = 0; c < l.inputs; c++)
                for (size_t lane = 0; lane < 16; lane++) {
                    size_t group = bundle * l.together + lane % l.together;
                    size_t output = group * l.outputs + lane / l.together;
                    *to++ = bi_conv2d_weight_at(s, canonical, output, tap, c);
                }
}

static size_t groups_scratch_bytes(const bi_step *s)
{
    groups_layout l = groups_layout_of(s);
    return bi_conv2d_align(l.bundles * l.bundle);
}

/* `pixels` pixels of a bundle, whose channels begin at `from`. */
BI_TARGET_avx512vbmi static void interleave(const groups_layout *l, const float *from,
                                            size_t stride, size_t pixels, float *to)
{
    size_t count = l->inputs * l->together;
    if (count > 16) {
        for (size_t x = 0; x < pixels; x++, from += stride, to += count)
            for (size_t c = 0; c < l->inputs; c++)
                for (size_t group = 0; group < l->together; group++)
                    to[c * l->together + group] = from[group * l->inputs + c];
        return;
    }
    int32_t places[16] = {0};
    for (size_t i = 0; i < count; i++)
        places[i] = (int32_t)(i % l->together * l->inputs + i / l->together);
    __m512i place = _mm512_loadu_si512(places);
    for (size_t x = 0; x < pixels; x++, from += stride, to += count) {
        __m512 y = bi_v_load_some_avx512(from, (int32_t)count);
        bi_v_store_some_avx512(to, _mm512_permutexvar_ps(place, y), (int32_t)count);
    }
}

static void groups_stage(const bi_step *s, const bi_pointers *at)
{
    groups_layout l = groups_layout_of(s);
    size_t channels = (size_t)s->in_c, top = (size_t)s->pad_top, left = (size_t)s->pad_left;
    size_t right = left + (size_t)s->in_w;    /* the columns [left, right) are of the map */
    left = left < l.width ? left : l.width;
    right = right < l.width ? right : l.width;
    for (size_t y = 0; y < l.height; y++)
        for (size_t bundle = 0; bundle < l.bundles; bundle++) {
            unsigned char *to = (unsigned char *)at->scratch + bundle * l.bundle + y * l.row;
            if (y < top || y >= top + (size_t)s->in_h || left == right) {
                memset(to, 0, l.row);
                continue;
            }
            const float *from = (const float *)at->source + (y - top) * (size_t)s->in_w * channels +
                                bundle * l.together * l.inputs;
            memset(to, 0, left * l.pixel);
            interleave(&l, from, channels, right - left, (float *)(to + left * l.pixel));
            memset(to + right * l.pixel, 0, (l.width - right) * l.pixel);
        }
}

/* Sums in the order of lanes become sums in the order of outputs. */
BI_TARGET_avx512vbmi static void order_outputs(const groups_layout *l, float *sums, size_t count)
{
    int32_t lanes[16];
    for (size_t o = 0; o < 16; o++)
        lanes[o] = (int32_t)(o % l->outputs * l->together + o / l->outputs);
    __m512i lane = _mm512_loadu_si512(lanes);
    for (; count > 0; count--, sums += 16)
        _mm512_storeu_ps(sums, _mm512_permutexvar_ps(lane, _mm512_loadu_ps(sums)));
}

/* The sums of `count` pixels, whose first taps are at `origin`, for the bundle that begins `bundle` bytes
 * into the plane.  `target` is where the floats of the first pixel will go, or NULL: writing begins with
 * fetching the old contents, and that takes long. */
static void sum_bundle(const bi_step *s, const groups_layout *l, const unsigned char *const *origin,
                       size_t count, size_t bundle, const unsigned char *weight,
                       const float *target, float *sums)
{
    bi_wide_tile *const *tile = l->together == 2 ? two_groups : four_groups;
    const bi_run *run = s->weight;
    size_t tiles = (count + BI_WIDE_PIXELS - 1) / BI_WIDE_PIXELS, done = 0;
    for (; tiles > 0; tiles--) {
        size_t now = (count - done + tiles - 1) / tiles;
        const unsigned char *pixel[BI_WIDE_PIXELS];
        for (size_t i = 0; i < BI_WIDE_PIXELS; i++)
            pixel[i] = origin[done + (i < now ? i : 0)] + bundle;
        for (size_t i = 0; target != NULL && i < now; i++)
            __builtin_prefetch(target + (done + i) * (size_t)s->out_c, 1, 2);
        tile[now - 1](pixel, weight, run, run + l->runs, NULL, sums + done * 16);
        done += now;
    }
    order_outputs(l, sums, count);
}

static void groups_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    groups_layout l = groups_layout_of(s);
    const unsigned char *weights = (const unsigned char *)s->weight + l.weights;
    const unsigned char *origin[GROUPS_CHUNK];
    float sums[GROUPS_CHUNK * 16];
    size_t width = (size_t)s->out_w, last = (size_t)end * width, count;
    for (size_t first = (size_t)begin * width; first < last; first += count) {
        count = last - first < GROUPS_CHUNK ? last - first : GROUPS_CHUNK;
        for (size_t i = 0; i < count; i++)
            origin[i] = (const unsigned char *)at->scratch +
                        (first + i) / width * (size_t)s->stride_h * l.row +
                        (first + i) % width * (size_t)s->stride_w * l.pixel;
        for (size_t bundle = 0; bundle < l.bundles; bundle++) {
            const float *target = NULL;
            if (!bi_target_is_signs(s))
                target = (const float *)at->target + first * (size_t)s->out_c + bundle * 16;
            sum_bundle(s, &l, origin, count, bundle * l.bundle,
                       weights + bundle * l.runs * l.run_steps * 64, target, sums);
            bi_plane_sums all = {
                .step = s,
                .at = at,
                .first = first,
                .count = count,
                .output = (int32_t)(bundle * 16),
                .outputs = 16,
                .sums = sums,
                .apart = 16,
            };
            bi_finish_pixels_conv2d_avx512(&all);
        }
    }
}

const bi_kernel bi_conv2d_groups_avx512vbmi = {
    .takes = groups_takes,
    .block = 16,
    .weight_bytes = groups_weight_bytes,
    .pack_weight = groups_pack_weight,
    .scratch_bytes = groups_scratch_bytes,
    .stage = groups_stage,
    .run = groups_run,
};
#endif
