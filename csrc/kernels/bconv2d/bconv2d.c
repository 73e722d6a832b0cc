/* bconv2d.c -- what all versions of the binary convolution share. */
#include "bconv2d.h"

#include <string.h>

size_t bi_bconv2d_scratch_bytes(const bi_step *s)
{
    if (!bi_bconv2d_realigns(s))
        return 0;
    return (size_t)s->in_h * (size_t)s->in_w * bi_bconv2d_shape_of(s).pixel_words * 8;
}

/* Copy `length` bits from bit `first` of `from` to bit 0 of `to`; the last word's rest is 0. */
static void copy_bits(const uint64_t *from, size_t first, int32_t length, uint64_t *to)
{
    size_t word = first / 64;
    unsigned shift = (unsigned)(first % 64);
    for (int32_t done = 0; done < length; done += 64, word++) {
        int32_t left = length - done < 64 ? length - done : 64;
        uint64_t bits = from[word] >> shift;
        if (shift != 0 && (int32_t)(64 - shift) < left)
            bits |= from[word + 1] << (64 - shift);
        *to++ = left < 64 ? bits & ((UINT64_C(1) << left) - 1) : bits;
    }
}

void bi_bconv2d_stage(const bi_step *s, const bi_pointers *at)
{
    if (!bi_bconv2d_realigns(s))
        return;
    bi_bconv2d_shape shape = bi_bconv2d_shape_of(s);
    const uint64_t *source = at->source;
    uint64_t *aligned = at->scratch;
    size_t pixels = (size_t)s->in_h * (size_t)s->in_w;
    for (size_t p = 0; p < pixels; p++, source += bi_words(s->in_c))
        for (int32_t g = 0; g < s->groups; g++, aligned += shape.words)
            copy_bits(source, (size_t)g * (size_t)shape.channels, shape.channels, aligned);
}

void bi_bconv2d_pack_tap_sums(const bi_step *s, const uint64_t *canonical, int32_t *tap_sums)
{
    bi_bconv2d_shape shape = bi_bconv2d_shape_of(s);
    size_t count = (size_t)s->out_c * (size_t)shape.taps;
    for (size_t i = 0; i < count; i++, canonical += shape.words) {
        int32_t negative = 0;
        for (size_t k = 0; k < shape.words; k++)
            negative += __builtin_popcountll(canonical[k]);
        tap_sums[i] = shape.channels - 2 * negative;
    }
}

int32_t bi_border_classes(int32_t out, int32_t stride, int32_t pad, int32_t dilation, int32_t taps,
                          int32_t extent, uint16_t *classes)
{
    int32_t count = 0, last_first = -1, last_end = -1;
    for (int32_t i = 0; i < out; i++) {
        int32_t first, end;
        bi_valid_taps(i, stride, pad, dilation, taps, extent, &first, &end);
        if (i == 0 || first != last_first || end != last_end)
            count++;
        if (classes != NULL)
            classes[i] = (uint16_t)(count - 1);
        last_first = first;
        last_end = end;
    }
    return count;
}

void bi_bconv2d_border_classes(const bi_step *s, uint16_t *row_class, uint16_t *column_class)
{
    bi_border_classes(s->out_h, s->stride_h, s->pad_top, s->dilation_h, s->kernel_h, s->in_h,
                      row_class);
    bi_border_classes(s->out_w, s->stride_w, s->pad_left, s->dilation_w, s->kernel_w, s->in_w,
                      column_class);
}

void bi_bconv2d_pack_ends(const bi_step *s, int32_t o, float *scales, uint64_t *flips)
{
    enum { LANES = 16 };
    scales += o / LANES * (int32_t)BI_SCALES * LANES + o % LANES;
    for (int32_t i = 0; i < (int32_t)BI_SCALES; i++)
        scales[i * LANES] = bi_scale_of(s, (bi_scale)i, o);
    if (s->flip != NULL)
        flips[o / 64] |= (uint64_t)(s->flip[o] != 0) << o % 64;
}

int32_t bi_bconv2d_signs_outside(const bi_step *s, const uint64_t *taps, int32_t y, int32_t x)
{
    bi_bconv2d_taps inside = bi_bconv2d_taps_at(s, y, x);
    int32_t sum = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            int32_t negative = 0;
            for (size_t k = 0; k < bi_words(s->in_c / s->groups); k++)
                negative += __builtin_popcountll(*taps++);
            if (ky < inside.ky_first || ky >= inside.ky_end || kx < inside.kx_first ||
                kx >= inside.kx_end)
                sum += s->in_c / s->groups - 2 * negative;
        }
    return sum;
}

/* The integer below, or equal to, half of an integer. */
static int64_t half_of(int64_t x) { return (x - (x < 0 ? x & 1 : 0)) / 2; }

int64_t bi_limit_of_odd(const bi_step *s, int32_t o, int32_t c, int32_t odd)
{
    return half_of(half_of((int64_t)c - s->threshold[o]) - odd);
}
