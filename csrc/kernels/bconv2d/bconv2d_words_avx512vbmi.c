/* bconv2d_words_avx512vbmi.c -- for up to 64 outputs, where the table kernel would leave half of
 * its vectors empty: XOR and vpopcntq, eight outputs to a vector, 32 outputs and four pixels at a
 * time.
 *
 * Packed weight: [block of 32 outputs][ky][kx][word][32] u64, missing outputs 0; then
 * [bi_scale][block][32] f32 and thresholds, [block][32] i32; then flips, [block] u64; then, where
 * padding is -1 or +1, what each tap adds outside the map, [tap][block][32] i32.
 *
 * It takes groups = 1 and dilation_w = 1 alone: then the taps of a row lie side by side.
 */
#if defined(__x86_64__)
#include "../isa.h"
#include "../unroll.h"
#include "../vectors/vectors_avx512.h"
#include "bconv2d.h"

#define BI_TARGET BI_TARGET_avx512vbmi
#define BI_OWN(name) name##_words_avx512vbmi
#define V(operation) bi_v_##operation##_avx512
#include "../epilogue_body.inc"

enum { WIDE_BLOCK = 32, VECTORS = 4, PIXELS = 4 };

static size_t block_count(const bi_step *s)
{
    return ((size_t)s->out_c + WIDE_BLOCK - 1) / WIDE_BLOCK;
}

static size_t output_words(const bi_step *s)
{
    return (size_t)(s->kernel_h * s->kernel_w) * bi_words(s->in_c);
}

/* The parts behind the words, in units of 32 bits for every output. */
enum { THRESHOLD = BI_SCALES, PARTS };

static size_t words_avx512vbmi_weight_bytes(const bi_step *s)
{
    size_t outputs = block_count(s) * WIDE_BLOCK;
    return outputs * (output_words(s) * 8 + PARTS * 4) + block_count(s) * 8 +
           (s->pad_value != 0 ? outputs * (size_t)(s->kernel_h * s->kernel_w) * 4 : 0);
}

static void words_avx512vbmi_pack_weight(const bi_step *s, const void *canonical, void *packed)
{
    size_t words = output_words(s), outputs = block_count(s) * WIDE_BLOCK;
    const uint64_t *from = canonical;
    uint64_t *to = packed;
    memset(packed, 0, words_avx512vbmi_weight_bytes(s));
    float *scales = (float *)(to + outputs * words);
    int32_t *thresholds = (int32_t *)scales + THRESHOLD * outputs;
    uint64_t *flips = (uint64_t *)(scales + PARTS * outputs);
    for (size_t o = 0; o < (size_t)s->out_c; o++) {
        uint64_t *block = to + o / WIDE_BLOCK * WIDE_BLOCK * words + o % WIDE_BLOCK;
        for (size_t k = 0; k < words; k++)
            block[k * WIDE_BLOCK] = from[o * words + k];
        for (size_t i = 0; i < BI_SCALES; i++)
            scales[i * outputs + o] = bi_scale_of(s, (bi_scale)i, (int32_t)o);
        if (s->threshold != NULL)
            thresholds[o] = s->threshold[o];
        if (s->flip != NULL)
            flips[o / WIDE_BLOCK] |= (uint64_t)(s->flip[o] != 0) << (o % WIDE_BLOCK);
    }
    if (s->pad_value == 0)
        return;
    size_t taps = (size_t)(s->kernel_h * s->kernel_w), tap_words = bi_words(s->in_c);
    int32_t *outside = (int32_t *)(flips + block_count(s));
    for (size_t o = 0; o < (size_t)s->out_c; o++)
        for (size_t t = 0; t < taps; t++) {
            int32_t negative = 0;
            for (size_t k = 0; k < tap_words; k++)
                negative += __builtin_popcountll(*from++);
            outside[t * outputs + o] = s->pad_value * (s->in_c - 2 * negative);
        }
}

static int words_avx512vbmi_takes(const bi_step *s)
{
    return s->dilation_w == 1 && s->groups == 1 && s->out_c <= 2 * WIDE_BLOCK;
}

/* What one call of the loops below needs. */
typedef struct {
    const bi_step *step;
    const bi_pointers *at;
    const uint64_t *weight;    /* of the block */
    const float *scales;       /* BI_SCALE_ALPHA of the block's first output */
    size_t outputs;            /* to the next bi_scale */
    uint64_t flips;
    const int32_t *outside;    /* what padded taps add, of the first output of the block */
    int32_t first;             /* output */
    int32_t is_signs;          /* the target */
} block;

/* Finish sixteen outputs of one pixel, from output `first + i` on; return their signs. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) uint32_t
write_sixteen(const block *b, size_t pixel, int32_t i, __m512i dot, bi_output output)
{
    const bi_step *s = b->step;
    const bi_pointers *at = b->at;
    int32_t left = s->out_c - b->first - i;
    if (left <= 0)
        return 0;
    const float *scales = b->scales + i;
    if (output == BI_SIGNS)
        return _mm512_cmplt_epi32_mask(dot, _mm512_loadu_si512(scales + THRESHOLD * b->outputs));
    size_t o = (size_t)(b->first + i);
    size_t residual = pixel * (size_t)(s->out_c + s->residual_gap) + o;
    size_t floats = pixel * (size_t)(s->out_c + s->target_gap) + o;
    bi_vector_outputs sixteen = {
        .scale = BI_SCALES_FROM(scales, b->outputs),
        .beta = at->beta != NULL ? at->beta + pixel : NULL,
        .residual = at->residual != NULL ? at->residual + residual : NULL,
        .floats = output != BI_ANY_OUTPUT || !b->is_signs ? (float *)at->target + floats : NULL,
        .left = left,
    };
    bi_activation kind =
        output == BI_ANY_OUTPUT ? (bi_activation)s->activation : BI_ACTIVATION_NONE;
    __m512 y = _mm512_cvtepi32_ps(dot);
    return (uint32_t)finish(s, &sixteen, &y, 1, output, kind, 1);
}

/* What the padded taps of a window add to the dot products of 32 outputs; out of line, since few
 * windows reach over the border. */
BI_TARGET_avx512vbmi static __attribute__((noinline)) void
add_padding(const block *b, const bi_bconv2d_taps *t, __m512i *dot)
{
    const bi_step *s = b->step;
    const int32_t *outside = b->outside;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++, outside += b->outputs)
            if (ky < t->ky_first || ky >= t->ky_end || kx < t->kx_first || kx >= t->kx_end) {
                dot[0] = _mm512_add_epi32(dot[0], _mm512_loadu_si512(outside));
                dot[1] = _mm512_add_epi32(dot[1], _mm512_loadu_si512(outside + 16));
            }
}

/* Finish 32 outputs of one pixel, from how many signs differ. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
write_outputs(const block *b, const bi_bconv2d_taps *t, size_t pixel, const __m512i *differ,
              bi_output output)
{
    const bi_step *s = b->step;
    int32_t taps = (t->ky_end - t->ky_first) * (t->kx_end - t->kx_first), valid = taps * s->in_c;
    uint32_t signs = 0;
    __m512i dot[2];
    BI_UNROLL for (int half = 0; half < 2; half++) {
        __m512i count = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm512_cvtepi64_epi32(differ[2 * half])),
            _mm512_cvtepi64_epi32(differ[2 * half + 1]), 1);
        dot[half] = _mm512_sub_epi32(_mm512_set1_epi32(valid), _mm512_add_epi32(count, count));
    }
    if (s->pad_value != 0 && taps != s->kernel_h * s->kernel_w)
        add_padding(b, t, dot);
    BI_UNROLL for (int half = 0; half < 2; half++)
        signs |= write_sixteen(b, pixel, 16 * half, dot[half], output) << (16 * half);
    if (output == BI_PLAIN_FLOATS || (output == BI_ANY_OUTPUT && s->flip == NULL))
        return;
    int32_t left = s->out_c - b->first;
    uint32_t inside = left >= WIDE_BLOCK ? ~0u : (1u << left) - 1;
    uint64_t *words = b->is_signs ? (uint64_t *)b->at->target : b->at->signs;
    uint32_t *target = (uint32_t *)(words + pixel * bi_words(s->out_c));
    int32_t unit = b->first / WIDE_BLOCK;
    target[unit] = (signs ^ (uint32_t)b->flips) & inside;
    if (left <= WIDE_BLOCK && unit % 2 == 0)
        target[unit + 1] = 0;    /* the other half of the last word */
}

/* Up to four neighbouring pixels whose windows have the same taps inside the map. */
BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
run_pixels(const block *b, const bi_bconv2d_taps *t, size_t pixel, int pixels, bi_output output)
{
    const bi_step *s = b->step;
    size_t words = bi_words(s->in_c), step = (size_t)s->stride_w * words;
    size_t run = (size_t)(t->kx_end - t->kx_first) * words;
    __m512i total[PIXELS][VECTORS];
    BI_UNROLL for (int p = 0; p < pixels; p++)
        BI_UNROLL for (int v = 0; v < VECTORS; v++) total[p][v] = _mm512_setzero_si512();
    for (int32_t ky = t->ky_first; ky < t->ky_end; ky++) {
        const uint64_t *a = (const uint64_t *)b->at->source +
                            ((size_t)(t->y + ky * s->dilation_h) * (size_t)s->in_w +
                             (size_t)(t->x + t->kx_first)) * words;
        const uint64_t *w =
            b->weight + (size_t)(ky * s->kernel_w + t->kx_first) * words * WIDE_BLOCK;
        for (size_t k = 0; k < run; k++, w += WIDE_BLOCK) {
            __m512i weight[VECTORS];
            BI_UNROLL for (int v = 0; v < VECTORS; v++) weight[v] = _mm512_loadu_si512(w + 8 * v);
            BI_UNROLL for (int p = 0; p < pixels; p++) {
                __m512i x = _mm512_set1_epi64((long long)a[k + (size_t)p * step]);
                BI_UNROLL for (int v = 0; v < VECTORS; v++) {
                    __m512i ones = _mm512_popcnt_epi64(_mm512_xor_si512(x, weight[v]));
                    total[p][v] = _mm512_add_epi64(total[p][v], ones);
                }
            }
        }
    }
    /* By way of memory: were these the loop's own, it might keep them there. */
    __m512i differ[PIXELS][VECTORS];
    BI_UNROLL for (int p = 0; p < pixels; p++)
        BI_UNROLL for (int v = 0; v < VECTORS; v++) differ[p][v] = total[p][v];
    BI_UNROLL for (int p = 0; p < pixels; p++)
        write_outputs(b, t, pixel + (size_t)p, differ[p], output);
}

BI_TARGET_avx512vbmi static inline __attribute__((always_inline)) void
run_outputs(const bi_step *s, const bi_pointers *at, int32_t begin, int32_t end, bi_output output)
{
    size_t words = output_words(s), outputs = block_count(s) * WIDE_BLOCK;
    const uint64_t *weight = s->weight;
    const float *scales = (const float *)(weight + outputs * words);
    const uint64_t *flips = (const uint64_t *)(scales + PARTS * outputs);
    for (int32_t y = begin; y < end; y++)
        for (size_t n = 0; n < block_count(s); n++) {
            block b = {
                .step = s,
                .at = at,
                .weight = weight + n * WIDE_BLOCK * words,
                .scales = scales + n * WIDE_BLOCK,
                .outputs = outputs,
                .flips = flips[n],
                .outside = (const int32_t *)(flips + block_count(s)) + n * WIDE_BLOCK,
                .first = (int32_t)n * WIDE_BLOCK,
                .is_signs = bi_target_is_signs(s),
            };
            bi_bconv2d_taps inside = bi_bconv2d_taps_at(s, y, 0);
            inside.kx_first = 0;
            inside.kx_end = s->kernel_w;
            for (int32_t x = 0; x < s->out_w;) {
                size_t pixel = (size_t)y * (size_t)s->out_w + (size_t)x;
                inside.x = x * s->stride_w - s->pad_left;
                /* If the windows of the first and the fourth pixel lie inside the map, so do those
                 * between. */
                int32_t last = inside.x + (PIXELS - 1) * s->stride_w + s->kernel_w;
                if (x + PIXELS <= s->out_w && inside.x >= 0 && last <= s->in_w) {
                    run_pixels(&b, &inside, pixel, PIXELS, output);
                    x += PIXELS;
                } else {
                    bi_bconv2d_taps t = bi_bconv2d_taps_at(s, y, x);
                    run_pixels(&b, &t, pixel, 1, output);
                    x++;
                }
            }
        }
}

BI_TARGET_avx512vbmi static void words_avx512vbmi_run(const bi_step *s, const bi_pointers *at, int32_t begin,
                                     int32_t end)
{
    switch (bi_output_of(s)) {
    case BI_PLAIN_FLOATS: run_outputs(s, at, begin, end, BI_PLAIN_FLOATS); break;
    case BI_SHORTCUT: run_outputs(s, at, begin, end, BI_SHORTCUT); break;
    case BI_SIGNS: run_outputs(s, at, begin, end, BI_SIGNS); break;
    case BI_ANY_OUTPUT: run_outputs(s, at, begin, end, BI_ANY_OUTPUT); break;
    case BI_OUTPUTS: break;
    }
}

const bi_kernel bi_bconv2d_words_avx512vbmi = {
    .takes = words_avx512vbmi_takes,
    .leaves_gaps = 1,
    .block = WIDE_BLOCK,
    .weight_bytes = words_avx512vbmi_weight_bytes,
    .pack_weight = words_avx512vbmi_pack_weight,
    .run = words_avx512vbmi_run,
};

#include "../epilogue_end.inc"
#undef BI_TARGET
#undef BI_OWN
#undef V
#endif
