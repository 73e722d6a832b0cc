/* channels_portable.c -- operations that move pixels or channels.
 *
 * copy_channels     target[y][x][channel_to + i] = source[y][x][channel_from + i], i < channel_count;
 *                   the other channels of the target are left as they are
 * shuffle_channels  target[y][x][i * groups + g] = source[y][x][g * (in_c / groups) + i]
 * pad2d             the source with a border of `low` (of packed signs: -1 or +1)
 * global_pool2d     target[c] = mean, or (BI_FLAG_MAXIMUM) maximum, of all pixels, in double precision
 *
 * Maps are [h][w][c] f32; pad2d takes packed signs (BI_FLAG_BITS) too.
 * rows: out_h; 1 for global_pool2d.
 */
#include <string.h>

#include "../kernel.h"

static void copy_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t first = (size_t)begin * (size_t)s->in_w, last = (size_t)end * (size_t)s->in_w;
    const float *source = (const float *)at->source + first * (size_t)s->in_c + s->channel_from;
    float *target = (float *)at->target + first * (size_t)s->out_c + s->channel_to;
    for (; first < last; first++, source += s->in_c, target += s->out_c)
        memcpy(target, source, (size_t)s->channel_count * sizeof *target);
}

static void shuffle_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t first = (size_t)begin * (size_t)s->in_w, last = (size_t)end * (size_t)s->in_w;
    int32_t per_group = s->in_c / s->groups;
    const float *source = (const float *)at->source + first * (size_t)s->in_c;
    float *target = (float *)at->target + first * (size_t)s->in_c;
    for (; first < last; first++, source += s->in_c)
        for (int32_t i = 0; i < per_group; i++)
            for (int32_t g = 0; g < s->groups; g++)
                *target++ = source[g * per_group + i];
}

static void pad_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    int is_bits = (s->flags & BI_FLAG_BITS) != 0;
    size_t words = bi_words(s->in_c);
    size_t pixel = is_bits ? words * 8 : (size_t)s->in_c * sizeof(float);
    size_t row = (size_t)s->in_w * pixel, pad_left = (size_t)s->pad_left * pixel;
    size_t out_row = (size_t)s->out_w * pixel;
    uint64_t last_word = s->in_c % 64 != 0 ? (UINT64_C(1) << (s->in_c % 64)) - 1 : ~UINT64_C(0);
    for (int32_t y = begin; y < end; y++) {
        char *target = (char *)at->target + (size_t)y * out_row;
        if (is_bits) {
            uint64_t *to = (uint64_t *)target;
            memset(to, s->low < 0 ? 0xff : 0, out_row);
            for (size_t i = words - 1; i < out_row / 8; i += words)
                to[i] &= last_word;
        } else {
            float *to = (float *)target;
            for (size_t i = 0; i < out_row / sizeof *to; i++)
                to[i] = s->low;
        }
        int32_t from = y - s->pad_top;
        if (from >= 0 && from < s->in_h)
            memcpy(target + pad_left, (const char *)at->source + (size_t)from * row, row);
    }
}

static void global_pool_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    enum { PIECE = 64 };
    if (begin >= end)    /* the one row is somebody else's */
        return;
    size_t pixels = (size_t)s->in_h * (size_t)s->in_w;
    int is_max = (s->flags & BI_FLAG_MAXIMUM) != 0;
    for (int32_t c = 0; c < s->in_c; c += PIECE) {
        int32_t count = s->in_c - c < PIECE ? s->in_c - c : PIECE;
        const float *source = (const float *)at->source + c;
        float *target = (float *)at->target + c;
        double sum[PIECE];
        for (int32_t i = 0; i < count; i++)
            sum[i] = source[i];
        for (size_t p = 1; p < pixels; p++) {
            source += s->in_c;
            if (is_max)
                for (int32_t i = 0; i < count; i++)    /* a NaN wins */
                    sum[i] = sum[i] >= source[i] || sum[i] != sum[i] ? sum[i] : source[i];
            else
                for (int32_t i = 0; i < count; i++)
                    sum[i] += source[i];
        }
        for (int32_t i = 0; i < count; i++)
            target[i] = (float)(is_max ? sum[i] : sum[i] / (double)pixels);
    }
}

const bi_kernel bi_copy_channels_scalar_portable = {.block = 1, .run = copy_run};
const bi_kernel bi_shuffle_channels_scalar_portable = {.block = 1, .run = shuffle_run};
const bi_kernel bi_pad2d_scalar_portable = {.block = 64, .run = pad_run};
const bi_kernel bi_global_pool2d_scalar_portable = {.block = 64, .run = global_pool_run};
