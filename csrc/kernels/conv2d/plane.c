/* plane.c -- fills the padded plane and lists the runs of a window. */
#include "plane.h"

#include <string.h>

/* `pixels` pixels of one group, from and to contiguous ones `stride` and `channels` apart. */
static void copy_floats(const float *from, size_t stride, size_t channels, size_t pixels, float *to)
{
    if (stride == channels) {
        memcpy(to, from, pixels * channels * sizeof(float));
        return;
    }
    for (size_t x = 0; x < pixels; x++, from += stride, to += channels)
        memcpy(to, from, channels * sizeof(float));
}

static void look_up(const float *table, const uint8_t *from, size_t stride, size_t channels,
                    size_t pixels, float *to)
{
    if (stride == 3 && channels == 3) {    /* pictures: the products by 3 are for free */
        for (size_t x = 0; x < pixels; x++, from += 3, to += 3) {
            to[0] = table[from[0] * 3];
            to[1] = table[from[1] * 3 + 1];
            to[2] = table[from[2] * 3 + 2];
        }
        return;
    }
    for (size_t x = 0; x < pixels; x++, from += stride, to += channels)
        for (size_t c = 0; c < channels; c++)
            to[c] = table[from[c] * stride + c];
}

#define DEFINE_WIDEN(NAME, TYPE)                                                                \
    static void NAME(const TYPE *from, size_t stride, size_t channels, size_t pixels, int16_t *to) \
    {                                                                                           \
        if (stride == channels) {                                                               \
            for (size_t i = 0; i < pixels * channels; i++)                                      \
                to[i] = from[i];                                                                \
            return;                                                                             \
        }                                                                                       \
        for (size_t x = 0; x < pixels; x++, from += stride, to += channels)                     \
            for (size_t c = 0; c < channels; c++)                                               \
                to[c] = from[c];                                                                \
    }
DEFINE_WIDEN(widen_u8, uint8_t)
DEFINE_WIDEN(widen_i8, int8_t)

static void copy_bytes(const uint8_t *from, size_t stride, size_t channels, size_t pixels,
                       uint8_t *to)
{
    if (stride == channels) {
        memcpy(to, from, pixels * channels);
        return;
    }
    for (size_t x = 0; x < pixels; x++, from += stride, to += channels)
        memcpy(to, from, channels);
}

/* `pixels` pixels of row y of the map, channels of the group from c on. */
static void stage_pixels(const bi_step *s, size_t element, const void *source, size_t y, size_t c,
                         size_t pixels, void *to)
{
    size_t stride = (size_t)s->in_c, channels = (size_t)(s->in_c / s->groups);
    size_t first = y * (size_t)s->in_w * stride + c;
    if (s->table != NULL)
        look_up(s->table + c, (const uint8_t *)source + first, stride, channels, pixels, to);
    else if (element == 1)
        copy_bytes((const uint8_t *)source + first, stride, channels, pixels, to);
    else if (s->flags & BI_FLAG_U8)
        widen_u8((const uint8_t *)source + first, stride, channels, pixels, to);
    else if (s->flags & BI_FLAG_I8)
        widen_i8((const int8_t *)source + first, stride, channels, pixels, to);
    else
        copy_floats((const float *)source + first, stride, channels, pixels, to);
}

/* The part of `size` places, `pad` of them before the map, that the map fills. */
static void inside(size_t size, int32_t pad, int32_t extent, size_t *first, size_t *end)
{
    size_t before = (size_t)pad, behind = (size_t)pad + (size_t)extent;
    *first = before < size ? before : size;
    *end = behind < size ? behind : size;
}

void bi_plane_stage(const bi_step *s, size_t element, const bi_pointers *at)
{
    bi_plane p = bi_plane_of(s, element);
    if (!p.staged)
        return;
    size_t y_first, y_end, x_first, x_end;
    inside(p.height, s->pad_top, s->in_h, &y_first, &y_end);
    inside(p.width, s->pad_left, s->in_w, &x_first, &x_end);
    unsigned char *to = at->scratch;
    for (size_t group = 0; group < (size_t)s->groups; group++)
        for (size_t y = 0; y < p.height; y++, to += p.row) {
            if (y < y_first || y >= y_end || x_first == x_end) {
                memset(to, 0, p.row);
                continue;
            }
            memset(to, 0, x_first * p.pixel);
            stage_pixels(s, element, at->source, y - (size_t)s->pad_top,
                         group * (size_t)(s->in_c / s->groups), x_end - x_first,
                         to + x_first * p.pixel);
            memset(to + x_end * p.pixel, 0, (p.width - x_end) * p.pixel);
        }
    memset(to, 0, 4);
}

void bi_runs_write(const bi_step *s, size_t element, bi_run *runs)
{
    bi_plane p = bi_plane_of(s, element);
    bi_runs_shape r = bi_runs_shape_of(s, element);
    size_t per_step = 4 / element;
    size_t columns = r.rows / (size_t)s->kernel_h;
    for (size_t i = 0; i < r.rows; i++)
        for (size_t piece = 0; piece < r.pieces; piece++, runs++) {
            size_t first = piece * BI_RUN_STEPS * per_step, length = r.elements - first;
            if (length > BI_RUN_STEPS * per_step)
                length = BI_RUN_STEPS * per_step;
            size_t begin = i / columns * (size_t)s->dilation_h * p.row +
                           i % columns * (size_t)s->dilation_w * p.pixel + first * element;
            runs->begin = (int64_t)begin;
            runs->end = (int64_t)(begin + (length + per_step - 1) / per_step * 4);
            runs->odd = length % per_step != 0;
        }
}
