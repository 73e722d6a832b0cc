/* conv2d.c -- the weight layout that all versions share. */
#include "conv2d.h"

#include <string.h>

size_t bi_conv2d_weight_bytes(const bi_step *s)
{
    size_t taps = (size_t)s->kernel_h * (size_t)s->kernel_w * (size_t)(s->in_c / s->groups);
    size_t blocks = ((size_t)(s->out_c / s->groups) + 7) / 8;
    return (size_t)s->groups * blocks * taps * 8 * sizeof(float);
}

void bi_conv2d_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    size_t taps = (size_t)s->kernel_h * (size_t)s->kernel_w * (size_t)(s->in_c / s->groups);
    size_t outputs = (size_t)(s->out_c / s->groups), blocks = (outputs + 7) / 8;
    const float *from = canonical;
    float *to = packed;
    memset(to, 0, bi_conv2d_weight_bytes(s));
    for (size_t o = 0; o < (size_t)s->out_c; o++, from += taps) {
        size_t group = o / outputs, inner = o % outputs;
        float *block = to + (group * blocks + inner / 8) * taps * 8;
        for (size_t k = 0; k < taps; k++)
            block[k * 8 + inner % 8] = from[k];
    }
}
