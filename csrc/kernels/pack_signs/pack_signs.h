/* pack_signs.h -- numbers to signs, by the bit convention (src/bitinfer/bits.py).
 *
 *   bit c of target[y][x] = (source[y][x][channel_from + c] < threshold[c]) != flip[c]
 *
 * The threshold is 0 where there is none, so 0 and -0.0 give 0 (+1).  A comparison with NaN is false.
 *
 * source  [in_h][in_w][in_c] f32; u8 with BI_FLAG_U8, i8 with BI_FLAG_I8 (compared as numbers)
 * bias    the thresholds, [out_c] f32, or NULL
 * weight  the flips, [words(out_c)] u64, stray bits 0, or NULL
 * target  [in_h][in_w][words(out_c)] u64, stray bits 0; channel_from + out_c <= in_c
 * rows    in_h
 */
#ifndef BITINFER_PACK_SIGNS_H
#define BITINFER_PACK_SIGNS_H

#include <string.h>

#include "../isa.h"
#include "../kernel.h"

typedef enum { BI_FROM_FLOAT, BI_FROM_U8, BI_FROM_I8 } bi_pack_type;

static inline float bi_pack_load(const void *source, size_t i, bi_pack_type type)
{
    switch (type) {
    case BI_FROM_U8: return ((const uint8_t *)source)[i];
    case BI_FROM_I8: return ((const int8_t *)source)[i];
    default: return ((const float *)source)[i];
    }
}

/* The word of up to 64 signs, one at a time.  Every number times 0 is added to *zero, which a NaN or
 * infinity makes NaN for good; NULL: nobody asks. */
static inline uint64_t bi_pack_word(const void *source, const float *threshold, int32_t count,
                                    bi_pack_type type, float *zero)
{
    uint64_t word = 0;
    for (int32_t i = 0; i < count; i++) {
        float x = bi_pack_load(source, (size_t)i, type);
        word |= (uint64_t)(x < (threshold != NULL ? threshold[i] : 0.0f)) << i;
        if (zero != NULL)
            *zero += x * 0.0f;
    }
    return word;
}

static inline int bi_pack_signs_looks(const bi_step *s) { return s->out_c == s->in_c; }

static inline bi_pack_type bi_pack_type_of(const bi_step *s)
{
    return s->flags & BI_FLAG_U8 ? BI_FROM_U8 : s->flags & BI_FLAG_I8 ? BI_FROM_I8 : BI_FROM_FLOAT;
}

/* The loop over pixels and words: pack_signs_<isa>(), around pack_word(), which packs one word and adds
 * every number times 0 to a bi_zeros_<isa> (or NULL), and sum(), which is 0 or NaN like what is in one. */
#define BI_DEFINE_PACK_SIGNS(isa, pack_word, sum)                                               \
    BI_TARGET_##isa static inline __attribute__((always_inline)) void pack_pixels_##isa(        \
        const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end, bi_pack_type type, \
        bi_zeros_##isa *zeros)                                                                  \
    {                                                                                           \
        size_t first = (size_t)begin * (size_t)s->in_w, last = (size_t)end * (size_t)s->in_w;   \
        size_t size = type == BI_FROM_FLOAT ? sizeof(float) : 1;                                \
        uint64_t *target = (uint64_t *)at->target + first * bi_words(s->out_c);                 \
        const uint64_t *flips = s->weight;                                                      \
        for (size_t pixel = first; pixel < last; pixel++) {                                     \
            size_t from = pixel * (size_t)s->in_c + (size_t)s->channel_from;                    \
            const char *source = (const char *)at->source + from * size;                        \
            for (int32_t c = 0; c < s->out_c; c += 64) {                                        \
                int32_t count = s->out_c - c < 64 ? s->out_c - c : 64;                          \
                const float *threshold = s->bias != NULL ? s->bias + c : NULL;                  \
                uint64_t word = pack_word(source, threshold, count, type, zeros);               \
                *target++ = flips != NULL ? word ^ flips[c / 64] : word;                        \
                source += (size_t)count * size;                                                 \
            }                                                                                   \
        }                                                                                       \
    }                                                                                           \
    BI_TARGET_##isa static void pack_signs_##isa(const bi_step *s, const bi_pointers *at,       \
                                                 int32_t begin, int32_t end)                    \
    {                                                                                           \
        bi_zeros_##isa zeros;                                                                   \
        memset(&zeros, 0, sizeof zeros);                                                        \
        switch (bi_pack_type_of(s)) {                                                           \
        case BI_FROM_U8: pack_pixels_##isa(s, at, begin, end, BI_FROM_U8, NULL); break;         \
        case BI_FROM_I8: pack_pixels_##isa(s, at, begin, end, BI_FROM_I8, NULL); break;         \
        default:                                                                                \
            if (at->lost == NULL) {                                                             \
                pack_pixels_##isa(s, at, begin, end, BI_FROM_FLOAT, NULL);                      \
                break;                                                                          \
            }                                                                                   \
            pack_pixels_##isa(s, at, begin, end, BI_FROM_FLOAT, &zeros);                        \
            if (sum(&zeros) != 0)                                                               \
                bi_note_lost(at->lost);                                                         \
        }                                                                                       \
    }

#endif
