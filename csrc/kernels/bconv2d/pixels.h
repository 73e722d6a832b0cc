/* pixels.h -- binary convolution with pixels in the lanes: the arithmetic and the layouts.
 *
 * Tables as in lookup.h, with the roles exchanged: a table belongs to four signs of the weights of two
 * outputs, and a vector of pixels is looked up in it.  So a vector is full of pixels, however few
 * outputs there are.  For an entry of four signs, d of them differing, par the parity,
 *
 *     f = (4 - d + par(a) - par(w)) / 2              0, 1 or 2, of which two share a byte
 *
 *     dot = 4 * sum of f - 2 * PA + C                PA: odd entries of the activations under the window
 *     C   = K + 2 * odd entries of the weights - 8 * entries
 *           - (1 - pad_value) * signs of the weights outside the map
 *
 * since padding is laid out as entries of 0, which are +1.  C depends on the output and on which taps
 * are inside the map (a class of rows, a class of columns).
 *
 * Entries of a window are in the order (ky, kx, four channels).  Two parts of at most LONGEST_PART of
 * them are summed in bytes.
 *
 * Packed weight: the header, then, at the offsets that it names,
 *     tables     [part][pair of outputs][entry of the part] u16, offsets into bi_lookup_nibbles
 *     constants  [class of rows][class of columns] of [outputs] i16, C; or, for thresholds, of
 *                [PA even, odd][outputs]: the output is below its threshold if
 *                sum of f - PA / 2 < this
 *     scales     [vector][bi_scale][16] f32
 *     flips      u64
 *     classes of the rows and of the columns, u16
 *
 * Scratch: planes [row phase][kx][entry of a pixel][rows][out_w] u8, what each output sees at a column of
 * its window: row y of the padded map is row y / stride_h of phase y % stride_h.  So neighbouring outputs
 * find a tap side by side, also across rows.  Behind them a plane for each phase of how many entries are odd
 * in all columns of a window, and two rows of the padded map, [column phase][entry of a pixel, odd entries]
 * [columns].
 */
#ifndef BITINFER_PIXELS_H
#define BITINFER_PIXELS_H

#include "bconv2d.h"

enum {
    PIXEL_OUTPUTS = 64, /* at most: a word of signs */
    LONGEST_PART = 126,
    PIXEL_PARTS = 2,
    PIXEL_ROWS = PIXEL_PARTS * PIXEL_OUTPUTS, /* of sums */
    PIXEL_SLACK = 64, /* bytes, or constants, that a vector may reach beyond */
    ROWS_TURNED = 16, /* at once */
    PIXELS_AHEAD = 8, /* whose floats are fetched from the second-level cache */
    SIXTEEN_OUTPUTS = 16, /* of scales, too */
};

typedef struct {
    int32_t entries; /* of a pixel */
    int32_t window; /* entries of a window */
    int32_t parts;
    int32_t part_entries[PIXEL_PARTS];
    int32_t pairs; /* of outputs */
    int32_t outputs; /* of constants and scales: whole vectors */
    int32_t h_classes;
    int32_t row_phases, rows; /* of the padded map */
    int32_t column_phases, columns; /* of a row of it */
    size_t plane,
        row; /* bytes of a plane, of a row of the map, and of what vectors write beyond it */
    size_t tables, constants, scales, flips, row_class, column_class; /* offsets */
    size_t class_size; /* numbers of a class among the constants */
    size_t total_bytes;
} bi_pixels;

/* Sixteen outputs of a pixel. */
typedef struct {
    const uint8_t *sums; /* a byte for each part of each output */
    const int16_t *constants;
    int16_t odd; /* what of PA is not in the constants */
} bi_pixels_sixteen;

/* Describe the layout; 0 if the shape is not one for it. */
int bi_pixels_describe(const bi_step *s, bi_pixels *shape);

/* Fill the packed weight of a shape that bi_pixels_describe() accepted. */
void bi_pixels_pack(const bi_step *s, const void *canonical, void *packed);

/* Bytes of a row of the map that is laid out, all phases of its columns. */
static inline size_t bi_pixels_laid_bytes(const bi_pixels *shape)
{
    return (size_t)(shape->column_phases * (shape->entries + 1)) * shape->row;
}

/* Sizes of weight and scratch of a step that a kernel takes. */
size_t bi_pixels_weight_bytes(const bi_step *s);
size_t bi_pixels_scratch_bytes(const bi_step *s);

/* Whether a kernel takes a step: the shape is one for it, and other kernels for the same CPU do not compute it in
 * less time, by what all of them cost. */
int bi_pixels_take_avx2(const bi_step *s);
int bi_pixels_take_avx512bw(const bi_step *s);
int bi_pixels_take_neon(const bi_step *s);

#endif
