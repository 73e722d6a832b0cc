/* conv2d.c -- the bias of integer layers whose pixels have an offset. */
#include "conv2d.h"

#include <string.h>

typedef struct {
    int32_t first, end;
} taps;

static taps row_taps(const bi_step *s, int32_t oy)
{
    taps t;
    bi_valid_taps(oy, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h, &t.first,
                  &t.end);
    return t;
}

static taps column_taps(const bi_step *s, int32_t ox)
{
    taps t;
    bi_valid_taps(ox, s->stride_w, s->pad_left, s->dilation_w, s->kernel_w, s->in_w, &t.first,
                  &t.end);
    return t;
}

/* Whether output `i` of an axis begins a class: classes are runs of neighbours, because both ends
 * of the range of taps only ever fall. */
static int begins_class(const bi_step *s, int32_t i, taps (*taps_at)(const bi_step *, int32_t))
{
    if (i == 0)
        return 1;
    taps now = taps_at(s, i), before = taps_at(s, i - 1);
    return now.first != before.first || now.end != before.end;
}

static int32_t count_classes(const bi_step *s, int32_t extent,
                             taps (*taps_at)(const bi_step *, int32_t))
{
    int32_t classes = 0;
    for (int32_t i = 0; i < extent; i++)
        classes += begins_class(s, i, taps_at);
    return classes;
}

size_t bi_conv2d_shift_bytes(const bi_step *s)
{
    if (s->offset == NULL)
        return 0;
    size_t classes = (size_t)count_classes(s, s->out_h, row_taps) *
                     (size_t)count_classes(s, s->out_w, column_taps);
    return ((size_t)s->out_h + (size_t)s->out_w + classes * (size_t)s->out_c + 16) * 4;
}

static float shift_of(const bi_step *s, const void *canonical, taps rows, taps columns, size_t o)
{
    size_t channels = (size_t)(s->in_c / s->groups);
    const float *offset = s->offset + o / (size_t)(s->out_c / s->groups) * channels;
    double sum = 0;
    for (int32_t ky = rows.first; ky < rows.end; ky++)
        for (int32_t kx = columns.first; kx < columns.end; kx++)
            for (size_t c = 0; c < channels; c++) {
                size_t tap = (size_t)ky * (size_t)s->kernel_w + (size_t)kx;
                sum += (double)bi_conv2d_weight_at(s, canonical, o, tap, c) * (double)offset[c];
            }
    double alpha = s->alpha != NULL ? (double)s->alpha[o] : 1.0;
    return (float)((s->bias != NULL ? (double)s->bias[o] : 0.0) - alpha * sum);
}

void bi_conv2d_pack_shifts(const bi_step *s, const void *canonical, void *shifts)
{
    if (s->offset == NULL)
        return;
    int32_t *rows = shifts, *columns = rows + s->out_h;
    float *to = (float *)(columns + s->out_w);
    int32_t column_classes = count_classes(s, s->out_w, column_taps), class = -1;
    for (int32_t oy = 0; oy < s->out_h; oy++) {
        class += begins_class(s, oy, row_taps);
        rows[oy] = class * column_classes * s->out_c;
    }
    class = -1;
    for (int32_t ox = 0; ox < s->out_w; ox++) {
        class += begins_class(s, ox, column_taps);
        columns[ox] = class * s->out_c;
    }
    for (int32_t oy = 0; oy < s->out_h; oy++)
        for (int32_t ox = 0; ox < s->out_w; ox++)
            if (begins_class(s, oy, row_taps) && begins_class(s, ox, column_taps))
                for (size_t o = 0; o < (size_t)s->out_c; o++)
                    *to++ = shift_of(s, canonical, row_taps(s, oy), column_taps(s, ox), o);
    memset(to, 0, 16 * sizeof(float));
}
