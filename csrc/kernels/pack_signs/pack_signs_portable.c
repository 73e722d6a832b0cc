/* pack_signs_portable.c -- one sign at a time. */
#include "pack_signs.h"

static void run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    size_t first = (size_t)begin * (size_t)s->in_w, last = (size_t)end * (size_t)s->in_w;
    const float *x = (const float *)at->source + first * (size_t)s->in_c;
    uint64_t *word = (uint64_t *)at->target + first * bi_words(s->in_c);
    for (size_t pixel = first; pixel < last; pixel++)
        for (int32_t c = 0; c < s->in_c; c += 64) {
            int32_t count = s->in_c - c < 64 ? s->in_c - c : 64;
            *word++ = bi_pack_word(x, count);
            x += count;
        }
}

const bi_kernel bi_pack_signs_portable = {.run = run};
