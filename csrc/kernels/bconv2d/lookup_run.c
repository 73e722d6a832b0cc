/* lookup_run.c -- tables, parities, and the order in which the table kernels compute pixels. */
#include "lookup.h"

const uint8_t bi_lookup_nibbles[256][16] __attribute__((aligned(64))) = {
#define PARITY(n) (((n) ^ (n) >> 1 ^ (n) >> 2 ^ (n) >> 3) & 1)
#define ONES(n) (((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3 & 1))
#define F(a, w) ((4 - ONES((a) ^ (w)) + PARITY(w) - PARITY(a)) / 2)
#define BYTE(i, w) (F((i) & 15, w) | F((i) >> 4, w) << 4)
#define ROW(i)                                                                                  \
    {BYTE(i, 0), BYTE(i, 1), BYTE(i, 2),  BYTE(i, 3),  BYTE(i, 4),  BYTE(i, 5),  BYTE(i, 6),    \
     BYTE(i, 7), BYTE(i, 8), BYTE(i, 9),  BYTE(i, 10), BYTE(i, 11), BYTE(i, 12), BYTE(i, 13),   \
     BYTE(i, 14), BYTE(i, 15)}
#define ROWS4(i) ROW(i), ROW((i) + 1), ROW((i) + 2), ROW((i) + 3)
#define ROWS16(i) ROWS4(i), ROWS4((i) + 4), ROWS4((i) + 8), ROWS4((i) + 12)
#define ROWS64(i) ROWS16(i), ROWS16((i) + 16), ROWS16((i) + 32), ROWS16((i) + 48)
    ROWS64(0), ROWS64(64), ROWS64(128), ROWS64(192)};
#undef PARITY
#undef ONES
#undef F
#undef BYTE
#undef ROW
#undef ROWS4
#undef ROWS16
#undef ROWS64

int bi_lookup_next_part(const bi_lookup *shape, const bi_step *s, int32_t longest, bi_part *part)
{
    int32_t length = shape->segment_entries, segments = s->kernel_h * shape->segments_per_row;
    if (length > longest) {
        int32_t pieces = (length + longest - 1) / longest;
        int32_t size = (length + pieces - 1) / pieces;
        part->entry += part->entries;
        if (part->segment_end == 0 || part->entry >= length) {
            part->segment = part->segment_end;
            part->entry = 0;
        }
        part->segment_end = part->segment + 1;
        part->entries = length - part->entry < size ? length - part->entry : size;
    } else {
        part->segment = part->segment_end;
        part->segment_end = part->segment + longest / length;
        if (part->segment_end > segments)
            part->segment_end = segments;
        part->entries = length;
    }
    return part->segment < segments;
}

void bi_lookup_sum_parities(const bi_step *s, const bi_lookup *shape, uint16_t *odd,
                            uint16_t *parities)
{
    size_t plane_w = (size_t)shape->plane_w;
    uint16_t *column = odd + (size_t)shape->plane_h * plane_w;
    for (int32_t oy = 0; oy < s->out_h; oy++, parities += s->out_w) {
        const uint16_t *row = odd + (size_t)(oy * s->stride_h) * plane_w;
        memcpy(column, row, plane_w * sizeof *column);
        for (int32_t ky = 1; ky < s->kernel_h; ky++) {
            row += (size_t)s->dilation_h * plane_w;
            for (size_t x = 0; x < plane_w; x++)
                column[x] = (uint16_t)(column[x] + row[x]);
        }
        for (int32_t ox = 0; ox < s->out_w; ox++)
            parities[ox] = column[ox * s->stride_w];
        for (int32_t kx = 1; kx < s->kernel_w; kx++)
            for (int32_t ox = 0; ox < s->out_w; ox++)
                parities[ox] =
                    (uint16_t)(parities[ox] + column[ox * s->stride_w + kx * s->dilation_w]);
    }
}

static const int16_t *constants_at(const bi_step *s, const bi_lookup *shape, int32_t group,
                                   int32_t family, int32_t v_class, int32_t h_class)
{
    size_t padded = (size_t)shape->vectors * (size_t)shape->lanes;
    size_t index =
        ((size_t)family * (size_t)shape->v_classes + (size_t)v_class) * (size_t)shape->h_classes +
        (size_t)h_class;
    return (const int16_t *)((const char *)shape + shape->constants) +
           (index * (size_t)s->groups + (size_t)group) * padded;
}

/* The first block of a group. */
static bi_block first_block(const bi_step *s, const bi_pointers *at, int32_t group,
                            const bi_lookup_group *planes)
{
    const bi_lookup *shape = s->weight;
    const char *base = (const char *)shape;
    size_t k = (size_t)(s->kernel_h * s->kernel_w) * (size_t)shape->entries;
    size_t padded = (size_t)shape->vectors * (size_t)shape->lanes, g = (size_t)group;
    size_t output = g * (size_t)shape->outputs, entries = (size_t)shape->entries;
    bi_output_pixel origin = bi_output_at(s, at, 0, g);
    bi_block b = {
        .step = s,
        .shape = shape,
        .floats = origin.floats != NULL ? origin.floats + output : NULL,
        .signs = origin.signs != NULL ? (char *)origin.signs + output / 8 : NULL,
        .residual = origin.residual != NULL ? origin.residual + output : NULL,
        .beta = origin.beta,
        .floats_pixel = (size_t)(s->out_c + s->target_gap),
        .residual_pixel = (size_t)(s->out_c + s->residual_gap),
        .signs_pixel = bi_words(s->out_c) * 8,
        .groups = (size_t)s->groups,
        .out_w = (size_t)s->out_w,
        .weights = (const uint8_t *)base + shape->weights + g * padded * k,
        .scales = (const float *)(base + shape->scales) + g * padded,
        .scale_step = (size_t)s->groups * padded,
        .thresholds = (const int16_t *)(base + shape->thresholds) + g * padded,
        .flips = (const uint64_t *)(base + shape->flips) + group * shape->vectors,
        .channels = shape->outputs,
        .is_last_group = group == s->groups - 1,
        .row_step = {(size_t)(s->dilation_h * shape->plane_w) * entries,
                     (size_t)(s->dilation_h * planes->vertical_w) * entries},
        .apart = {(size_t)s->stride_w * entries, (size_t)(s->stride_h * shape->plane_w) * entries},
    };
    return b;
}

static void run_blocks(const bi_block *first, const bi_pair *pairs, size_t count,
                       bi_run_block *run_block)
{
    bi_block b = *first;
    const bi_lookup *shape = b.shape;
    size_t k = (size_t)(b.step->kernel_h * b.step->kernel_w) * (size_t)shape->entries;
    bi_output output = bi_output_of(b.step);
    for (int32_t left = shape->vectors, vectors; left > 0; left -= vectors) {
        vectors = bi_lookup_block(left);
        int32_t channels = vectors * shape->lanes;
        run_block(&b, pairs, count, vectors, output);
        b.first_channel += channels;
        b.channels -= channels;
        b.weights += (size_t)channels * k;
        b.scales += channels;
        b.thresholds += channels;
        b.flips += vectors;
    }
}

void bi_lookup_run(const bi_step *s, const bi_pointers *at, int32_t group,
                   const bi_lookup_group *planes, int32_t begin, int32_t end,
                   bi_run_block *run_block)
{
    const bi_lookup *shape = s->weight;
    const char *base = (const char *)shape;
    const uint16_t *row_class = (const uint16_t *)(base + shape->row_class);
    const uint16_t *column_class = (const uint16_t *)(base + shape->column_class);
    size_t entries = (size_t)shape->entries, plane_row = (size_t)shape->plane_w * entries;
    size_t class_step = (size_t)s->groups * (size_t)shape->vectors * (size_t)shape->lanes;
    const bi_block first = first_block(s, at, group, planes);
    bi_pair pairs[BI_LOOKUP_TILE];
    size_t count = 0;
    for (int32_t y = begin; y < end; y++) {
        bi_bconv2d_taps taps = bi_bconv2d_taps_at(s, y, 0);
        const int16_t *constants = constants_at(s, shape, group, 0, row_class[y], 0);
        int32_t pixel = y * s->out_w;
        const uint16_t *parities = planes->parities + pixel;
        bi_pair next = {
            .index = planes->plane + (size_t)(y * s->stride_h) * plane_row,
            .pixel = pixel,
            .ky_first = (int16_t)taps.ky_first,
            .ky_end = (int16_t)taps.ky_end,
        };
        for (int32_t x = 0; x + 1 < s->out_w; x += 2) {
            next.constants[0] = constants + column_class[x] * class_step;
            next.constants[1] = constants + column_class[x + 1] * class_step;
            next.parity[0] = (int16_t)(2 * parities[x]);
            next.parity[1] = (int16_t)(2 * parities[x + 1]);
            pairs[count++] = next;
            next.index += 2 * (size_t)s->stride_w * entries;
            next.pixel += 2;
            if (count == BI_LOOKUP_TILE) {
                run_blocks(&first, pairs, count, run_block);
                count = 0;
            }
        }
        if (s->out_w % 2 == 0 || (y - begin) % 2 != 0)
            continue;
        int32_t x = s->out_w - 1, below = y + 1 < end;
        pairs[count++] = (bi_pair){
            .index = planes->vertical + ((size_t)(y * s->stride_h) * (size_t)planes->vertical_w +
                                         (size_t)planes->vertical_x) *
                                            entries,
            .constants = {constants_at(s, shape, group, 1, row_class[y], column_class[x]),
                          constants_at(s, shape, group, 1, row_class[y + below], column_class[x])},
            .pixel = pixel + x,
            .parity = {(int16_t)(2 * parities[x]), (int16_t)(2 * parities[x + below * s->out_w])},
            .ky_end = (int16_t)s->kernel_h,
            .is_vertical = 1,
            .is_alone = !below,
        };
        if (count == BI_LOOKUP_TILE) {
            run_blocks(&first, pairs, count, run_block);
            count = 0;
        }
    }
    if (count > 0)
        run_blocks(&first, pairs, count, run_block);
}
