/* bconv2d_avx512vbmi.c -- binary convolution by table look-up with 64 channels and two pixels to a
 * vector (lookup.h has the arithmetic, lookup_avx512.inc the inner loop).
 *
 * Scratch, per group: the plane, u16 [plane_h][plane_w][entries]: 64 times the entry, the offset of
 * its table.  Unlike bconv2d_avx2.c's, an entry belongs to one pixel, so any two can be paired.
 *
 * It takes no shape that would leave half of the vectors empty (up to 64 outputs), and no dilated
 * one; bconv2d_bitpairs_avx512vbmi.c leaves it what this is faster at.
 */
#if defined(__x86_64__)
#include "../isa.h"
#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "lookup.h"

#define BI_TARGET BI_TARGET_avx512vbmi
#define BI_OWN(name) name##_lookup6
#define BI_ENTRY_BITS 6
#define TABLES tables[0][0]
#include "lookup_avx512.inc"

/* Row a, byte w: f(a, w), in the low digit, then the same in the high digit. */
static const uint8_t tables[2][64][64] __attribute__((aligned(64))) = {
#define ONES(n) \
    (((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3 & 1) + ((n) >> 4 & 1) + ((n) >> 5 & 1))
#define F(a, w) ((6 - ONES((a) ^ (w)) + ONES(w) % 2 - ONES(a) % 2) / 2)
#define BYTES8(a, w, d)                                                                        \
    F(a, w) << d, F(a, (w) + 1) << d, F(a, (w) + 2) << d, F(a, (w) + 3) << d,                  \
        F(a, (w) + 4) << d, F(a, (w) + 5) << d, F(a, (w) + 6) << d, F(a, (w) + 7) << d
#define ROW(a, d)                                                                              \
    {BYTES8(a, 0, d),  BYTES8(a, 8, d),  BYTES8(a, 16, d), BYTES8(a, 24, d),                   \
     BYTES8(a, 32, d), BYTES8(a, 40, d), BYTES8(a, 48, d), BYTES8(a, 56, d)}
#define ROWS4(a, d) ROW(a, d), ROW((a) + 1, d), ROW((a) + 2, d), ROW((a) + 3, d)
#define ROWS16(a, d) ROWS4(a, d), ROWS4((a) + 4, d), ROWS4((a) + 8, d), ROWS4((a) + 12, d)
#define ROWS64(d) {ROWS16(0, d), ROWS16(16, d), ROWS16(32, d), ROWS16(48, d)}
    ROWS64(0), ROWS64(4)};
#undef ONES
#undef F
#undef BYTES8
#undef ROW
#undef ROWS4
#undef ROWS16
#undef ROWS64

#include "tile_avx512.inc"

static int lookup6_takes(const bi_step *s)
{
    bi_lookup shape;
    return s->dilation_w == 1 && s->out_c / s->groups > LANES &&
           bi_lookup_describe(s, BI_ENTRY_BITS, LANES, &shape);
}

/* Where the parts of the scratch begin, for one group after the other; bytes. */
typedef struct {
    size_t plane, parities, odd, total;
    size_t plane_u16;    /* of one group */
} lookup6_layout;

static lookup6_layout lookup6_layout_of(const bi_step *s, const bi_lookup *shape)
{
    size_t groups = (size_t)s->groups, plane_w = (size_t)shape->plane_w;
    size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
    lookup6_layout at;
    /* A vertical pair whose lower pixel is missing still reads one stride further down. */
    at.plane_u16 = (size_t)(shape->plane_h + s->stride_h) * plane_w * (size_t)shape->entries;
    at.plane = (bi_bconv2d_scratch_bytes(s) + 63) / 64 * 64;
    at.parities = at.plane + (groups * at.plane_u16 * 2 + 63) / 64 * 64;
    at.odd = at.parities + (groups * pixels * 2 + 63) / 64 * 64;
    at.total = at.odd + (size_t)(shape->plane_h + 1) * plane_w * 2;
    return at;
}

static size_t lookup6_weight_bytes(const bi_step *s)
{
    bi_lookup shape;
    bi_lookup_describe(s, BI_ENTRY_BITS, LANES, &shape);
    return shape.total_bytes;
}

static void lookup6_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    bi_lookup shape;
    bi_lookup_describe(s, BI_ENTRY_BITS, LANES, &shape);
    bi_lookup_pack(s, &shape, canonical, packed);
}

static size_t lookup6_scratch_bytes(const bi_step *s)
{
    bi_lookup shape;
    bi_lookup_describe(s, BI_ENTRY_BITS, LANES, &shape);
    return lookup6_layout_of(s, &shape).total;
}

/* Write the entries of one pixel; return how many are odd.  Eight entries come from six bytes. */
BI_TARGET_avx512vbmi static inline int32_t write_pixel(const uint64_t *pixel, size_t words,
                                                       int32_t entries, uint16_t *to)
{
    /* Six bytes to every eight, then a window of eight bits every six. */
    const __m512i spread = _mm512_set_epi64(
        0x2f2e2d2c2b2aLL, 0x292827262524LL, 0x232221201f1eLL, 0x1d1c1b1a1918LL, 0x171615141312LL,
        0x11100f0e0d0cLL, 0x0b0a09080706LL, 0x050403020100LL);
    const __m512i windows = _mm512_set1_epi64(0x2a241e18120c0600LL);
    int32_t odd = 0;
    const char *bytes = (const char *)pixel;
    size_t left = words * 8;
    for (; entries > 0; entries -= 64, bytes += 48, left -= 48, to += 64) {
        __mmask64 here = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
        __m512i raw = _mm512_maskz_loadu_epi8(here, bytes);
        raw = _mm512_permutexvar_epi8(spread, raw);
        __m512i six = _mm512_and_si512(_mm512_multishift_epi64_epi8(windows, raw),
                                       _mm512_set1_epi8(63));
        __mmask64 wanted = entries >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << entries) - 1;
        __mmask64 is_odd = _mm512_mask_test_epi8_mask(wanted, _mm512_popcnt_epi8(six),
                                                      _mm512_set1_epi8(1));
        odd += (int32_t)__builtin_popcountll(is_odd);
        __m512i low = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(six));
        _mm512_mask_storeu_epi16(to, (__mmask32)wanted, _mm512_slli_epi16(low, 6));
        if (entries > 32) {
            __m512i high = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(six, 1));
            _mm512_mask_storeu_epi16(to + 32, (__mmask32)(wanted >> 32),
                                     _mm512_slli_epi16(high, 6));
        }
    }
    return odd;
}

BI_TARGET_avx512vbmi static void lookup6_stage(const bi_step *s, const bi_pointers *at)
{
    const bi_lookup *shape = s->weight;
    bi_bconv2d_stage(s, at);
    lookup6_layout parts = lookup6_layout_of(s, shape);
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    size_t plane_w = (size_t)shape->plane_w, entries = (size_t)shape->entries;
    int32_t end_x = s->in_w + s->pad_left;
    end_x = end_x < shape->plane_w ? end_x : shape->plane_w;
    for (int32_t g = 0; g < s->groups; g++) {
        uint16_t *plane = (uint16_t *)((char *)at->scratch + parts.plane) +
                          (size_t)g * parts.plane_u16;
        uint16_t *odd = (uint16_t *)((char *)at->scratch + parts.odd);
        memset(odd, 0, (size_t)shape->plane_h * plane_w * sizeof *odd);
        for (int32_t y = 0; y < shape->plane_h + s->stride_h; y++) {
            uint16_t *row = plane + (size_t)y * plane_w * entries;
            int32_t from = y - s->pad_top;
            if (from < 0 || from >= s->in_h || y >= shape->plane_h || s->pad_left >= end_x) {
                memset(row, 0, plane_w * entries * sizeof *row);
                continue;
            }
            memset(row, 0, (size_t)s->pad_left * entries * sizeof *row);
            memset(row + (size_t)end_x * entries, 0,
                   (size_t)(shape->plane_w - end_x) * entries * sizeof *row);
            const uint64_t *pixel = bi_bconv2d_source(s, at) + (size_t)g * group.words +
                                    (size_t)from * (size_t)s->in_w * group.pixel_words;
            for (int32_t x = s->pad_left; x < end_x; x++, pixel += group.pixel_words)
                odd[(size_t)y * plane_w + (size_t)x] = (uint16_t)write_pixel(
                    pixel, group.words, shape->entries, row + (size_t)x * entries);
        }
        bi_lookup_sum_parities(s, shape, odd,
                               (uint16_t *)((char *)at->scratch + parts.parities) +
                                   (size_t)g * (size_t)s->out_h * (size_t)s->out_w);
    }
}

static void lookup6_run(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end)
{
    const bi_lookup *shape = s->weight;
    lookup6_layout parts = lookup6_layout_of(s, shape);
    const char *scratch = at->scratch;
    size_t pixels = (size_t)s->out_h * (size_t)s->out_w;
    for (int32_t g = 0; g < s->groups; g++) {
        const uint16_t *plane =
            (const uint16_t *)(scratch + parts.plane) + (size_t)g * parts.plane_u16;
        bi_lookup_group planes = {
            .plane = plane,
            .vertical = plane,
            .vertical_w = shape->plane_w,
            .vertical_x = (s->out_w - 1) * s->stride_w,
            .parities = (const uint16_t *)(scratch + parts.parities) + (size_t)g * pixels,
        };
        bi_lookup_run(s, at, g, &planes, begin, end, run_block);
    }
}

const bi_kernel bi_bconv2d_lookup6_avx512vbmi = {
    .takes = lookup6_takes,
    .leaves_gaps = 1,
    .block = LANES,
    .weight_bytes = lookup6_weight_bytes,
    .pack_weight = lookup6_pack_weight,
    .scratch_bytes = lookup6_scratch_bytes,
    .stage = lookup6_stage,
    .run = lookup6_run,
};
#undef LANES
#undef run_block
#undef BI_TARGET
#undef BI_OWN
#undef BI_ENTRY_BITS
#undef TABLES
#endif
