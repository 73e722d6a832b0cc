/* bitpairs.h -- binary convolution by counting the ones of pairs of signs: the arithmetic and the layouts.
 *
 * A pixel is cut into halves, and bit i of the first is paired with bit i of the second.  Of a pair
 * are kept its first bit and its parity.  With d, 0 to 2, the differing bits of the pairs (a, a')
 * and (w, w'),
 *
 *     g = (d + parity(w, w') - parity(a, a')) / 2
 *       = a ^ w if the parities are equal, else parity(w, w')         a bit
 *
 * so that half of the bits need counting:
 *
 *     dot = C - 2 * PA - 4 * sum of g    PA: odd pairs of the activations under the window
 *     C   = K + 2 * odd pairs of the weights - (1 - pad_value) * signs of the weights outside the map
 *
 * since padding is laid out as pairs of 0, which are +1.  C depends on the output and on which taps
 * are inside the map (a class of rows, a class of columns).
 *
 * The pixels under the windows of some outputs (a piece) are laid column by column, [x][ky][half a
 * pixel] in bytes, so that a window is one run of bytes, and a step 32 bits of it: K crosses taps.
 *
 * Packed weight: the header, then, at the offsets that it names,
 *     weights    [vector][step][first bits, parities][16] u32
 *     constants  [class of rows][class of columns] of [vector][16] f32, C; or, for thresholds, of
 *                [PA even, odd][vector][16] i32: the output is below its threshold if
 *                PA / 2 + sum of g > this
 *     scales     [vector][bi_scale][16] f32
 *     flips      [word] u64
 *     classes of the rows and of the columns, u16
 *
 * Not for groups or dilation_w other than 1, nor where a few windows are more than COLUMN_BYTES.
 */
#ifndef BITINFER_BITPAIRS_H
#define BITINFER_BITPAIRS_H

#include "bconv2d.h"

enum {
    SIXTEEN = 16,
    COLUMNS_AT_ONCE = 8,
    COLUMN_BYTES = 8192, /* of a piece's columns: both halves stay in the first-level cache */
    COLUMNS_LIMIT = 512, /* of a piece */
    PIECE_OUTPUTS = 64,
};

typedef struct {
    int32_t half; /* bytes of half a pixel */
    int32_t column; /* bytes of a column: kernel_h halves */
    int32_t window; /* bytes of a window: kernel_w columns */
    int32_t steps; /* over the window */
    int32_t vectors; /* of sixteen channels */
    int32_t h_classes;
    int32_t width, rows; /* of the outputs of a piece; several rows if they are whole */
    uint32_t last; /* which bits of the last step belong to the window */
    size_t weights, constants, scales, flips, row_class, column_class; /* offsets */
    size_t class_size; /* numbers of a class among the constants */
    size_t total_bytes;
    uint8_t order[128]; /* from which byte of two vectors each byte of eight columns comes */
} bi_bitpairs;

/* Describe the layout; 0 if the shape is not one for it. */
int bi_bitpairs_describe(const bi_step *s, bi_bitpairs *shape);

/* Fill the packed weight of a shape that bi_bitpairs_describe() accepted. */
void bi_bitpairs_pack(const bi_step *s, const void *canonical, void *packed);

/* Whether the kernel of six-bit tables computes this step in less time, by what both cost. */
int bi_bitpairs_is_dearer_than_lookup6(const bi_step *s, const bi_bitpairs *shape);

/* Columns under the windows of neighbouring outputs. */
static inline int32_t bi_bitpairs_columns(const bi_step *s, int32_t outputs)
{
    return (outputs - 1) * s->stride_w + s->kernel_w;
}

#endif
