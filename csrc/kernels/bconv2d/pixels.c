/* pixels.c -- lays out weights, border constants and scales for pixels.h, and says what they cost. */
#include "pixels.h"

enum { MOST_PIXEL_CONSTANTS = 1 << 22 };

int bi_pixels_describe(const bi_step *s, bi_pixels *shape)
{
    memset(shape, 0, sizeof *shape);
    int64_t entries = ((int64_t)s->in_c + 3) / 4, taps = (int64_t)s->kernel_h * s->kernel_w;
    if (s->groups != 1 || s->out_c > PIXEL_OUTPUTS || entries * taps > PIXEL_PARTS * LONGEST_PART)
        return 0;
    int64_t reach_h = (int64_t)(s->kernel_h - 1) * s->dilation_h + 1;
    int64_t reach_w = (int64_t)(s->kernel_w - 1) * s->dilation_w + 1;
    int64_t row_phases = s->stride_h < reach_h ? s->stride_h : reach_h;
    int64_t column_phases = s->stride_w < reach_w ? s->stride_w : reach_w;
    int64_t rows = s->out_h + (reach_h - 1) / s->stride_h;
    int64_t columns = s->out_w + (reach_w - 1) / s->stride_w;
    /* Not where there is far more padding than map. */
    if (row_phases * rows * column_phases * columns > 8 * (int64_t)s->in_h * s->in_w + 4096)
        return 0;
    shape->entries = (int32_t)entries;
    shape->window = (int32_t)(entries * taps);
    shape->parts = shape->window > LONGEST_PART ? 2 : 1;
    shape->part_entries[0] = (shape->window + shape->parts - 1) / shape->parts;
    shape->part_entries[1] = shape->window - shape->part_entries[0];
    shape->pairs = (s->out_c + 1) / 2;
    shape->outputs = (s->out_c + 15) / 16 * 16;
    shape->row_phases = (int32_t)row_phases;
    shape->rows = (int32_t)rows;
    shape->column_phases = (int32_t)column_phases;
    shape->columns = (int32_t)columns;
    shape->plane = ((size_t)(rows * s->out_w) + 2 * PIXEL_SLACK - 1) / PIXEL_SLACK * PIXEL_SLACK;
    shape->row = ((size_t)columns + 2 * PIXEL_SLACK - 1) / PIXEL_SLACK * PIXEL_SLACK;
    int32_t v_classes = bi_border_classes(s->out_h, s->stride_h, s->pad_top, s->dilation_h,
                                          s->kernel_h, s->in_h, NULL);
    shape->h_classes = bi_border_classes(s->out_w, s->stride_w, s->pad_left, s->dilation_w,
                                         s->kernel_w, s->in_w, NULL);
    size_t outputs = (size_t)shape->outputs, classes = (size_t)v_classes * (size_t)shape->h_classes;
    shape->class_size = outputs * (s->threshold != NULL ? 2 : 1);
    if (classes * shape->class_size > MOST_PIXEL_CONSTANTS)
        return 0;
    shape->tables = (sizeof *shape + 63) / 64 * 64;
    shape->constants = shape->tables + ((size_t)(shape->window * shape->pairs) * 2 + 63) / 64 * 64;
    shape->scales = shape->constants + (classes * shape->class_size * 2 + 63) / 64 * 64;
    shape->flips = shape->scales + BI_SCALES * outputs * 4;
    shape->row_class = shape->flips + 8;
    shape->column_class = shape->row_class + (size_t)s->out_h * 2;
    shape->total_bytes = shape->column_class + (size_t)s->out_w * 2 + PIXEL_SLACK;
    return 1;
}

/* Hundredths of cycles, measured on an Emerald Rapids (layers of 8 to 64 outputs, 3 to 512 inputs, on 4x4 to
 * 56x56, ending in signs of sums, or in floats with shortcut, RPReLU and signs), those of AVX-512 BW by interleaved
 * minima as multiples of what the two of AVX2 took in the same run.  Sums of these are right to a tenth, so pixels4
 * must be quicker by a twentieth. */
typedef struct {
    int32_t lanes;
    int32_t pair; /* two outputs of a vector of pixels, for an entry of the window; */
    int32_t gather; /* and to gather such an entry */
    int32_t lay; /* an entry of a row of the padded map, at a column of windows */
    int32_t signs[PIXEL_PARTS]; /* the end of sixteen outputs of a pixel, by the parts of K */
    int32_t floats[PIXEL_PARTS];
} pixels_costs;

typedef struct {
    int32_t lanes;
    int32_t entry; /* two pixels, for an entry of the window; */
    int32_t vector; /* and a vector of outputs of them */
    int32_t pixel; /* what does not depend on the number of outputs */
    int32_t signs, floats; /* the end of such a vector of a pixel */
} lookup_costs;

static const pixels_costs PIXELS_AVX2 = {32, 90, 414, 700, {200, 270}, {1500, 1900}};
static const pixels_costs PIXELS_AVX512BW = {64, 123, 911, 760, {186, 527}, {999, 1412}};
static const lookup_costs LOOKUP_AVX2 = {32, 207, 0, 0, 1410, 4210};
static const lookup_costs LOOKUP_AVX512BW = {64, 157, 0, 0, 2100, 7428};

/* Hundredths of instructions, not of cycles: nothing was timed on a CPU.  Those that ran under emulation (gcc 12 -O3,
 * bench/neon_instructions.py) of 77 layers of 8 to 64 outputs, 3 to 128 inputs, windows of 1x1 to 5x5, on maps of 7x7
 * to 32x32, ending as above.  `pair` and `gather` were counted alone, the others are fitted.  With the same layers
 * ending in plain floats, 218 of 231 get the kernel of fewer instructions by them, the others one of up to a quarter
 * more. */
static const pixels_costs PIXELS_NEON = {16, 307, 395, 4760, {4000, 4700}, {14500, 15400}};
static const lookup_costs LOOKUP_NEON = {16, 367, 250, 15680, 4760, 18640};

static int64_t pixels_cost(const bi_step *s, const bi_pixels *shape, const pixels_costs *cost)
{
    int64_t outputs = (int64_t)s->out_h * s->out_w, window = shape->window;
    int64_t vectors = (outputs + cost->lanes - 1) / cost->lanes,
            sixteens = shape->outputs / SIXTEEN_OUTPUTS;
    const int32_t *end = s->threshold != NULL ? cost->signs : cost->floats;
    return vectors * window * (cost->pair * shape->pairs + cost->gather) +
           outputs * sixteens * end[shape->parts - 1] +
           cost->lay * (int64_t)shape->row_phases * shape->rows * s->kernel_w * shape->entries;
}

static int64_t lookup_cost(const bi_step *s, const bi_pixels *shape, const lookup_costs *cost)
{
    int64_t outputs = (int64_t)s->out_h * s->out_w;
    int64_t vectors = (s->out_c + cost->lanes - 1) / cost->lanes;
    int64_t end = s->threshold != NULL ? cost->signs : cost->floats;
    return (outputs + 1) / 2 * shape->window * (cost->entry + cost->vector * vectors) +
           outputs * (cost->pixel + vectors * end);
}

int bi_pixels_take_avx2(const bi_step *s)
{
    bi_pixels shape;
    return bi_pixels_describe(s, &shape) &&
           20 * pixels_cost(s, &shape, &PIXELS_AVX2) <= 19 * lookup_cost(s, &shape, &LOOKUP_AVX2);
}

int bi_pixels_take_neon(const bi_step *s)
{
    bi_pixels shape;
    return bi_pixels_describe(s, &shape) &&
           20 * pixels_cost(s, &shape, &PIXELS_NEON) <= 19 * lookup_cost(s, &shape, &LOOKUP_NEON);
}

/* What it leaves goes to tables of activations with AVX-512 if half of their vectors are full, else to a kernel for
 * AVX2. */
int bi_pixels_take_avx512bw(const bi_step *s)
{
    bi_pixels shape;
    if (!bi_pixels_describe(s, &shape))
        return 0;
    int64_t theirs = lookup_cost(s, &shape, &LOOKUP_AVX2),
            narrow = pixels_cost(s, &shape, &PIXELS_AVX2);
    if (s->out_c > LOOKUP_AVX512BW.lanes / 2 && s->dilation_w == 1)
        theirs = lookup_cost(s, &shape, &LOOKUP_AVX512BW);
    else if (narrow < theirs)
        theirs = narrow;
    return 20 * pixels_cost(s, &shape, &PIXELS_AVX512BW) <= 19 * theirs;
}

size_t bi_pixels_weight_bytes(const bi_step *s)
{
    bi_pixels shape;
    bi_pixels_describe(s, &shape);
    return shape.total_bytes;
}

size_t bi_pixels_scratch_bytes(const bi_step *s)
{
    bi_pixels shape;
    bi_pixels_describe(s, &shape);
    size_t planes = (size_t)shape.row_phases * ((size_t)(s->kernel_w * shape.entries) + 1);
    return planes * shape.plane + 2 * bi_pixels_laid_bytes(&shape);
}

/* Write what a class of output o needs, whose constant, but for entries, is c. */
static void pack_pixel_class(const bi_step *s, const bi_pixels *shape, int32_t o, int32_t c,
                             int16_t *to)
{
    if (s->threshold == NULL) {
        to[o] = (int16_t)(c - 8 * shape->window);
        return;
    }
    for (int32_t odd = 0; odd < 2; odd++) {
        int64_t limit = 2 * shape->window - bi_limit_of_odd(s, o, c, odd);
        limit = limit > INT16_MAX ? INT16_MAX : limit < INT16_MIN ? INT16_MIN : limit;
        to[odd * shape->outputs + o] = (int16_t)limit;
    }
}

/* Write which tables one output, or the second of a pair, takes; return how many entries are odd. */
static int32_t pack_tables(const bi_step *s, const bi_pixels *shape, const uint64_t *taps,
                           int32_t o, uint16_t *to)
{
    int32_t odd = 0, shift = o % 2 == 0 ? 4 : 8, entry = 0;
    for (int32_t tap = 0; tap < s->kernel_h * s->kernel_w; tap++, taps += bi_words(s->in_c))
        for (int32_t e = 0; e < shape->entries; e++, entry++) {
            uint32_t signs = (uint32_t)(taps[e / 16] >> e % 16 * 4) & 15;
            int32_t second = entry >= shape->part_entries[0],
                    in_part = entry - second * shape->part_entries[0];
            size_t at = (size_t)(second * shape->part_entries[0] * shape->pairs) +
                        (size_t)(o / 2 * shape->part_entries[second] + in_part);
            to[at] = (uint16_t)(to[at] | signs << shift);
            odd += __builtin_parity(signs);
        }
    return odd;
}

void bi_pixels_pack(const bi_step *s, const void *canonical, void *packed)
{
    bi_pixels shape;
    bi_pixels_describe(s, &shape);
    char *base = packed;
    memset(base, 0, shape.total_bytes);
    memcpy(base, &shape, sizeof shape);
    uint16_t *row_class = (uint16_t *)(base + shape.row_class);
    uint16_t *column_class = (uint16_t *)(base + shape.column_class);
    bi_bconv2d_border_classes(s, row_class, column_class);
    const uint64_t *taps = canonical;
    size_t words = bi_words(s->in_c);
    for (int32_t o = 0; o < s->out_c; o++, taps += (size_t)(s->kernel_h * s->kernel_w) * words) {
        int32_t odd = pack_tables(s, &shape, taps, o, (uint16_t *)(base + shape.tables));
        int32_t inside = s->kernel_h * s->kernel_w * s->in_c + 2 * odd;
        for (int32_t y = 0; y < s->out_h; y++)
            for (int32_t x = 0; x < s->out_w; x++) {
                if (!bi_begins_class(row_class, y) || !bi_begins_class(column_class, x))
                    continue;
                int32_t outside = bi_bconv2d_signs_outside(s, taps, y, x);
                size_t index = (size_t)row_class[y] * (size_t)shape.h_classes + column_class[x];
                pack_pixel_class(s, &shape, o, inside - (1 - s->pad_value) * outside,
                                 (int16_t *)(base + shape.constants) + index * shape.class_size);
            }
        bi_bconv2d_pack_ends(s, o, (float *)(base + shape.scales),
                             (uint64_t *)(base + shape.flips));
    }
}
