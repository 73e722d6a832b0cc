/* pixels.c -- lays out weights, border constants and scales for pixels.h, and says what they cost. */
#include "pixels.h"

enum { MOST_PIXEL_CONSTANTS = 1 << 22, PIXEL_SLACK = 64 };

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
 * 56x56, ending in signs of sums, or in floats with shortcut, RPReLU and signs):
 *
 *                an entry of a window                     the end of an output
 *     pixels4    90 for two channels of 32 outputs,       200 for 16 channels of signs, 270 if K has two
 *                414 to gather 32 outputs                 parts; 1500 and 1900 of floats
 *     lookup4    207 for two outputs                      1410 for 32 channels of signs; 4210 of floats
 *
 * and pixels4 takes 700 for an entry of each row of the padded map at a column of windows.  Sums of these
 * are right to a tenth, so pixels4 must be quicker by a twentieth. */
int bi_pixels_are_dearer(const bi_step *s, const bi_pixels *shape)
{
    int64_t outputs = (int64_t)s->out_h * s->out_w, window = shape->window;
    int64_t vectors = (outputs + PIXEL_LANES - 1) / PIXEL_LANES, sixteens = shape->outputs / 16;
    int is_floats = s->threshold == NULL;
    int64_t end = shape->parts == 1 ? (is_floats ? 1500 : 200) : (is_floats ? 1900 : 270);
    int64_t ours = vectors * window * (90 * shape->pairs + 414) + outputs * sixteens * end +
                   700 * (int64_t)shape->row_phases * shape->rows * s->kernel_w * shape->entries;
    int64_t theirs = (outputs + 1) / 2 * window * 207 +
                     outputs * ((s->out_c + 31) / 32) * (is_floats ? 4210 : 1410);
    return 20 * ours > 19 * theirs;
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
