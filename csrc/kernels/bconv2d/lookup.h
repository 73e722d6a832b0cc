/* lookup.h -- binary convolution by table look-up: the arithmetic and the layouts.
 *
 * K is cut into entries of g bits (g = 4: nibbles).  With m the matching bits of an entry and par
 * the parity of its bits,
 *
 *     f(a, w) = (m + par(w) - par(a)) / 2          an integer, 0..2 for g = 4, 0..3 for g = 6
 *
 * so that, over N entries which hold K signs (stray bits are 0 in both operands),
 *
 *     dot = 4 * sum f  +  2 * PA  +  (K - 2 g N - 2 * PW)
 *
 * PA and PW count the entries of odd parity of the activations and of the weights.  f needs three
 * (four) values where popcount needs five (seven): that is what lets two pixels share a byte.
 *
 * Padding.  The map is laid out with its padding as entries of 0 (a plane), so that windows need no
 * conditions.  A padded tap that was computed added f(0, w); a constant per output and border class
 * takes it away again, and adds what the tap should hold if pad_value is not 0:
 *
 *     C = sum over the taps inside the map of (channels - 2 g entries - 2 PW(tap))
 *         - 4 * sum over the padded taps that are computed of sum f(0, w)
 *         + pad_value * sum over all padded taps of the signs of w
 *
 *     dot = 4 * sum f  +  2 * PA  +  C             PA of padding is 0
 *
 * A class is a set of taps inside the map (a range vertically, a range horizontally) and which tap
 * rows are computed: those inside the map, or (family 1, for pairs of pixels from two rows) all.
 * Everything fits in 16 bits for K < 2^15 - 1, since sums may wrap as long as dot itself fits.
 *
 * Packed weight: this header, then, at the offsets that it names,
 *     weights    [group][block of V vectors][entry][V][lanes] u8, entries in the order (ky, kx, c)
 *     constants  [family][vertical, horizontal class][group][vector][even, odd][lanes / 2] i16
 *     scales     [bi_scale][group][vector][lanes] f32
 *     thresholds [group][vector][even, odd][lanes / 2] i16
 *     flips      [group][vector] u64, bit c for channel c of the vector
 *     classes of the rows and of the columns, u16
 *     terms      room for one output's terms of C, [kernel_h][kernel_w], while packing
 *
 * Byte b of a vector holds channel (i / 8) * 16 + odd * 8 + i % 8, with i = b / 2 and odd = b % 2:
 * split into even and odd bytes, widened and packed again, channels come out in natural order.
 */
#ifndef BITINFER_LOOKUP_H
#define BITINFER_LOOKUP_H

#include "bconv2d.h"

typedef struct {
    int32_t entry_bits, lanes;
    int32_t channels, outputs;     /* of one group */
    int32_t entries;               /* of one pixel of one group */
    int32_t vectors;               /* of one group */
    int32_t plane_h, plane_w;      /* the padded map, as far as windows reach */
    int32_t reach_w;               /* columns under one window */
    int32_t segments_per_row;      /* runs of entries that touch: 1, or kernel_w if dilated */
    int32_t segment_entries;
    int32_t v_classes, h_classes;
    size_t weights, constants, scales, thresholds, flips;    /* offsets */
    size_t row_class, column_class, terms;
    size_t total_bytes;
} bi_lookup;

/* Describe the layout; 0 if the shape is not one for tables (K too large for 16 bits, too many
 * border classes, far more padding than map, or packed outputs whose groups share a vector). */
int bi_lookup_describe(const bi_step *s, int32_t entry_bits, int32_t lanes, bi_lookup *shape);

/* Fill the packed weight of a shape that bi_lookup_describe() accepted. */
void bi_lookup_pack(const bi_step *s, const bi_lookup *shape, const uint64_t *canonical,
                    void *packed);

/* Vectors of the next block when `left` of a group remain: fours, but no lone one if avoidable. */
static inline int32_t bi_lookup_block(int32_t left) { return left == 5 ? 3 : left < 4 ? left : 4; }

/* A part of K: whole segments, or one part of one segment. */
typedef struct {
    int32_t segment, segment_end, entry, entries;    /* entry, entries: within each segment */
} bi_part;

/* Move on to the next part (from all 0: to the first), of at most `longest` entries.  Returns 0
 * after the last one. */
int bi_lookup_next_part(const bi_lookup *shape, const bi_step *s, int32_t longest, bi_part *part);

/* Two output pixels, A and B, that are computed together. */
typedef struct {
    const uint16_t *index;          /* entries of pixel A at tap row 0 */
    const int16_t *constants[2];    /* of the group's first channel */
    int32_t pixel;                  /* number of A; B is the next one, or the one below */
    int16_t parity[2];              /* 2 * PA */
    int16_t ky_first, ky_end;       /* tap rows that are computed */
    int16_t is_vertical;            /* B lies below A, not to its right */
    int16_t is_alone;               /* there is no B */
} bi_pair;

/* Whether two pairs compute the same tap rows of the same plane. */
static inline int bi_pairs_lie_alike(const bi_pair *one, const bi_pair *other)
{
    return one->ky_first == other->ky_first && one->ky_end == other->ky_end &&
           one->is_vertical == other->is_vertical;
}

/* Where stage() left one group's entries. */
typedef struct {
    const uint16_t *plane;       /* of neighbouring pixels; plane_w columns */
    const uint16_t *vertical;    /* for the last column, if out_w is odd */
    int32_t vertical_w;          /* columns of that plane */
    int32_t vertical_x;          /* the column in it where the last output's window begins */
    const uint16_t *parities;    /* PA, [out_h][out_w] */
} bi_lookup_group;

enum { BI_LOOKUP_TILE = 48 };

/* Of pairs (lookup_pairs.inc): bits of an entry; entries more than a plane has, which may be read. */
enum { BI_PAIR_BITS = 4, BI_PAIR_SLACK = 64 };

/* What the loops over the pairs of a tile share: a block of vectors of channels of one group. */
typedef struct {
    const bi_step *step;
    const bi_lookup *shape;
    float *floats;                      /* of the group's first channel of pixel 0, or NULL... */
    char *signs;                        /* ...or NULL... */
    const float *residual, *beta;       /* ...or NULL */
    size_t floats_pixel, residual_pixel, signs_pixel; /* from pixel to pixel, floats and bytes */
    size_t groups, out_w;
    const uint8_t *weights; /* of the block */
    const float *scales; /* BI_SCALE_ALPHA of its first channel... */
    size_t scale_step; /* ...and how far behind it the next bi_scale is */
    const int16_t *thresholds; /* of its first channel, too */
    const uint64_t *flips;
    int32_t first_channel, channels; /* of the block in the group; of the group from there on */
    int32_t is_last_group;
    size_t row_step[2], apart[2]; /* u16, by is_vertical: between tap rows; from A to B if
                                         * both lie in one plane */
} bi_block;

static inline size_t bi_pair_pixel(const bi_block *b, const bi_pair *pair, int which)
{
    return (size_t)pair->pixel + (which == 0 ? 0 : pair->is_vertical ? b->out_w : 1);
}

typedef void bi_run_block(const bi_block *b, const bi_pair *pairs, size_t count, int32_t vectors,
                          bi_output output);

/* Hand every block of the rows [begin, end) of a group to run_block, for at most BI_LOOKUP_TILE
 * pairs at a time.  Pairs are horizontal; if out_w is odd, the last column is paired vertically. */
void bi_lookup_run(const bi_step *s, const bi_pointers *at, int32_t group,
                   const bi_lookup_group *planes, int32_t begin, int32_t end,
                   bi_run_block *run_block);

/* PA of every output pixel from the odd entries of every pixel of the padded map: `odd` is
 * [plane_h][plane_w], with room for one more row that this function uses. */
void bi_lookup_sum_parities(const bi_step *s, const bi_lookup *shape, uint16_t *odd,
                            uint16_t *parities);

/* The tables for entries of four bits: entry i, byte w is f(a, w) | f(b, w) << 4 for
 * i = a | b << 4. */
extern const uint8_t bi_lookup_nibbles[256][16];

#endif
