/* bitpairs.c -- lays out weights, border constants and scales for bitpairs.h, and says what they cost. */
#include "bitpairs.h"

enum { MOST_CONSTANTS = 1 << 22 };

int bi_bitpairs_describe(const bi_step *s, bi_bitpairs *shape)
{
    memset(shape, 0, sizeof *shape);
    int64_t half = ((int64_t)s->in_c + 15) / 16, column = half * s->kernel_h;
    int64_t limit =
        COLUMN_BYTES / column < COLUMNS_LIMIT ? COLUMN_BYTES / column : (int64_t)COLUMNS_LIMIT;
    int64_t most = limit < s->kernel_w ? 0 : (limit - s->kernel_w) / s->stride_w + 1;
    if (s->dilation_w != 1 || s->groups != 1 || most < 4)
        return 0;
    shape->half = (int32_t)half;
    shape->column = (int32_t)column;
    shape->window = (int32_t)(column * s->kernel_w);
    shape->steps = (shape->window + 3) / 4;
    shape->vectors = (s->out_c + SIXTEEN - 1) / SIXTEEN;
    shape->width = most < PIECE_OUTPUTS ? (int32_t)most / 4 * 4 : (int32_t)PIECE_OUTPUTS;
    shape->width = s->out_w < shape->width ? s->out_w : shape->width;
    int32_t rows = (int32_t)(limit / bi_bitpairs_columns(s, shape->width));
    shape->rows = shape->width < s->out_w || rows < 1 ? 1 : rows;
    if (shape->rows > PIECE_OUTPUTS / shape->width)
        shape->rows = PIECE_OUTPUTS / shape->width;
    shape->last = UINT32_MAX >> (32 - 8 * (shape->window - 4 * (shape->steps - 1)));
    int32_t v_classes = bi_border_classes(s->out_h, s->stride_h, s->pad_top, s->dilation_h,
                                          s->kernel_h, s->in_h, NULL);
    shape->h_classes =
        bi_border_classes(s->out_w, s->stride_w, s->pad_left, 1, s->kernel_w, s->in_w, NULL);
    size_t outputs = (size_t)shape->vectors * SIXTEEN,
           classes = (size_t)v_classes * (size_t)shape->h_classes;
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

/* Hundredths of cycles for sixteen channels of an output, measured on an Emerald Rapids (layers of 64
 * to 1024 channels):
 *
 *              along K                        an output               channels    rows
 *     bitpairs 200 for 32 pairs               350                     16 a time
 *     lookup6  16.5 for six signs of a tap    370; 800 of windows     64 a time   two a time
 *
 * and more where the sums become floats, by alpha and bias alone:
 *
 *     bitpairs 36 for 32 pairs                650
 *     lookup6  45 for six channels of windows 430; 250 of windows
 *
 * All else that layers end with costs lookup6 so much more that it is not asked.  These are times with
 * the weights at hand; bitpairs reads them anew for every piece of a row, and was up to a seventh slower
 * where the caches were shared with other programs: it must be quicker by so much. */
int bi_bitpairs_is_dearer_than_lookup6(const bi_step *s, const bi_bitpairs *shape)
{
    int64_t taps = s->kernel_h * s->kernel_w, entries = (s->in_c + 5) / 6;
    int64_t ours = 200 * (int64_t)shape->steps + 350;
    int64_t theirs = 165 * taps * entries / 10 + (taps > 1 ? 800 : 370);
    if (s->threshold == NULL) {
        if (s->has_residual || s->has_beta || s->has_signs || s->sign_threshold != NULL ||
            s->activation != BI_ACTIVATION_NONE)
            return 0;
        ours += 36 * (int64_t)shape->steps + 650;
        theirs += taps > 1 ? 45 * entries + 250 : 430;
    }
    ours *= (int64_t)shape->vectors * s->out_h;
    theirs *= ((s->out_c + 63) / 64 * 4) * ((s->out_h + 1) / 2 * 2);
    return 7 * ours > 6 * theirs;
}

/* Write what a class of output o needs, whose constant is c. */
static void pack_class(const bi_step *s, const bi_bitpairs *shape, int32_t o, int32_t c, char *to)
{
    if (s->threshold == NULL) {
        ((float *)to)[o] = (float)c;
        return;
    }
    for (int32_t odd = 0; odd < 2; odd++) {
        int64_t limit = bi_limit_of_odd(s, o, c, odd);
        ((int32_t *)to)[odd * shape->vectors * SIXTEEN + o] = (int32_t)limit;
    }
}

/* Lay out the taps of one output; return how many pairs of them are odd. */
static int32_t pack_taps(const bi_step *s, const bi_bitpairs *shape, const uint64_t *taps,
                         uint32_t *to)
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

void bi_bitpairs_pack(const bi_step *s, const void *canonical, void *packed)
{
    bi_bitpairs shape;
    bi_bitpairs_describe(s, &shape);
    char *base = packed;
    memset(base, 0, shape.total_bytes);
    memcpy(base, &shape, sizeof shape);
    uint16_t *row_class = (uint16_t *)(base + shape.row_class);
    uint16_t *column_class = (uint16_t *)(base + shape.column_class);
    bi_bconv2d_border_classes(s, row_class, column_class);
    const uint64_t *taps = canonical;
    size_t words = bi_words(s->in_c);
    for (int32_t o = 0; o < s->out_c; o++, taps += (size_t)(s->kernel_h * s->kernel_w) * words) {
        uint32_t *to = (uint32_t *)(base + shape.weights) +
                       (size_t)(o / SIXTEEN * shape.steps) * 2 * SIXTEEN + o % SIXTEEN;
        int32_t inside = s->kernel_h * s->kernel_w * s->in_c + 2 * pack_taps(s, &shape, taps, to);
        for (int32_t y = 0; y < s->out_h; y++)
            for (int32_t x = 0; x < s->out_w; x++) {
                if (!bi_begins_class(row_class, y) || !bi_begins_class(column_class, x))
                    continue;
                int32_t outside = bi_bconv2d_signs_outside(s, taps, y, x);
                size_t index = (size_t)row_class[y] * (size_t)shape.h_classes + column_class[x];
                pack_class(s, &shape, o, inside - (1 - s->pad_value) * outside,
                           base + shape.constants + index * shape.class_size * 4);
            }
        bi_bconv2d_pack_ends(s, o, (float *)(base + shape.scales),
                             (uint64_t *)(base + shape.flips));
    }
}
