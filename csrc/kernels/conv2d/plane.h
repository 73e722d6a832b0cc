/* plane.h -- where the kernels that compute tiles find their inputs.
 *
 * They read a *plane*: the map with its padding, so that no tap is out of bounds.  Floats without
 * padding, table and groups are read where they are; everything else is staged in the scratch, as
 * f32 or, of integer layers, as i16 or (pixels) u8, [group][row][column][channel of the group].
 * `element`, which the kernel chooses, is the size of one: 4, 2 or 1 bytes.
 *
 * K comes in *steps* of 4 bytes, which are broadcast: a float, two 16-bit integers or four bytes.
 * The taps of a window are *runs* of contiguous elements, the same for every pixel: a row of the
 * window where columns lie side by side, else a tap; at most BI_RUN_STEPS long.  A run of integers
 * that ends within a step reads up to three elements more, whose weight is 0.
 */
#ifndef BITINFER_CONV2D_PLANE_H
#define BITINFER_CONV2D_PLANE_H

#include "conv2d.h"

enum { BI_RUN_STEPS = 256 };

typedef struct {
    int staged;
    size_t element;                /* bytes */
    size_t pixel, row, group;      /* bytes from one to the next */
    size_t height, width;          /* of a staged plane */
} bi_plane;

static inline bi_plane bi_plane_of(const bi_step *s, size_t element)
{
    bi_plane p = {.element = element};
    int32_t height = (s->out_h - 1) * s->stride_h + (s->kernel_h - 1) * s->dilation_h + 1;
    int32_t width = (s->out_w - 1) * s->stride_w + (s->kernel_w - 1) * s->dilation_w + 1;
    p.staged = element < 4 || s->table != NULL || s->pad_top != 0 || s->pad_left != 0 ||
               height > s->in_h || width > s->in_w;
    p.height = (size_t)height;
    p.width = (size_t)width;
    size_t channels = (size_t)(s->in_c / s->groups) * p.element;
    if (p.staged) {
        p.pixel = channels;
        p.row = p.width * p.pixel;
        p.group = p.height * p.row;
    } else {
        p.pixel = (size_t)s->in_c * 4;
        p.row = (size_t)s->in_w * p.pixel;
        p.group = channels;
    }
    return p;
}

/* Bytes of the staged plane, with what the last run reads too much; 0 if there is none. */
static inline size_t bi_plane_bytes(const bi_step *s, size_t element)
{
    bi_plane p = bi_plane_of(s, element);
    return p.staged ? bi_conv2d_align((size_t)s->groups * p.group + 4) : 0;
}

void bi_plane_stage(const bi_step *s, size_t element, const bi_pointers *at);

/* Bytes from the first tap of a pixel; the assembly of tile_avx2.h knows this layout. */
typedef struct {
    int64_t begin, end;    /* end - begin = 4 * steps */
    int64_t odd;           /* whether the last step is not full */
} bi_run;

/* How the window of a step falls into runs. */
typedef struct {
    size_t rows;       /* of the window, or taps */
    size_t elements;   /* of one row */
    size_t pieces;     /* of one row */
    size_t steps;      /* of the whole window */
} bi_runs_shape;

static inline bi_runs_shape bi_runs_shape_of(const bi_step *s, size_t element)
{
    bi_plane p = bi_plane_of(s, element);
    size_t channels = (size_t)(s->in_c / s->groups), per_step = 4 / element;
    int side_by_side = s->dilation_w == 1 && p.pixel == channels * element;
    bi_runs_shape r = {
        .rows = side_by_side ? (size_t)s->kernel_h : bi_conv2d_taps(s),
        .elements = side_by_side ? (size_t)s->kernel_w * channels : channels,
    };
    size_t steps = (r.elements + per_step - 1) / per_step;
    r.pieces = (steps + BI_RUN_STEPS - 1) / BI_RUN_STEPS;
    r.steps = r.rows * steps;
    return r;
}

static inline size_t bi_runs_count(const bi_step *s, size_t element)
{
    bi_runs_shape r = bi_runs_shape_of(s, element);
    return r.rows * r.pieces;
}

void bi_runs_write(const bi_step *s, size_t element, bi_run *runs);

#endif
