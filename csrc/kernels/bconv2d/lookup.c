/* lookup.c -- lays out weights, border constants and scales for the table kernels. */
#include "lookup.h"

enum { ALIGNMENT = 64, MOST_CLASSES = 4096 };

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* What one tap contributes to C, by what it is. */
typedef struct {
    int32_t inside;      /* channels - 2 g entries - 2 PW */
    int32_t computed;    /* sum of f(0, w) */
    int32_t signs;
} tap_terms;

int bi_lookup_describe(const bi_step *s, int32_t entry_bits, int32_t lanes, bi_lookup *shape)
{
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    int32_t reach_h = s->dilation_h * (s->kernel_h - 1) + 1;
    shape->entry_bits = entry_bits;
    shape->lanes = lanes;
    shape->channels = group.channels;
    shape->outputs = group.outputs;
    shape->entries = (group.channels + entry_bits - 1) / entry_bits;
    shape->vectors = (group.outputs + lanes - 1) / lanes;
    shape->reach_w = s->dilation_w * (s->kernel_w - 1) + 1;
    shape->plane_h = (s->out_h - 1) * s->stride_h + reach_h;
    shape->plane_w = (s->out_w - 1) * s->stride_w + shape->reach_w;
    shape->segments_per_row = s->dilation_w == 1 ? 1 : s->kernel_w;
    shape->segment_entries = shape->entries * (s->dilation_w == 1 ? s->kernel_w : 1);
    shape->v_classes = bi_border_classes(s->out_h, s->stride_h, s->pad_top, s->dilation_h,
                                         s->kernel_h, s->in_h, NULL);
    shape->h_classes = bi_border_classes(s->out_w, s->stride_w, s->pad_left, s->dilation_w,
                                         s->kernel_w, s->in_w, NULL);
    int64_t plane = (int64_t)shape->plane_h * shape->plane_w, map = (int64_t)s->in_h * s->in_w;
    int has_signs = s->threshold != NULL || s->sign_threshold != NULL;
    int shares = has_signs && s->groups > 1 && group.outputs % lanes != 0;
    if (shares || (int64_t)group.taps * group.channels >= INT16_MAX ||
        (int64_t)shape->v_classes * shape->h_classes > MOST_CLASSES || plane > 8 * map + 4096)
        return 0;

    size_t outputs = (size_t)s->groups * (size_t)shape->vectors * (size_t)lanes;
    size_t classes = 2 * (size_t)shape->v_classes * (size_t)shape->h_classes;
    if (classes * outputs > (size_t)1 << 24)
        return 0;
    shape->weights = aligned(sizeof *shape);
    shape->constants =
        aligned(shape->weights + outputs * (size_t)group.taps * (size_t)shape->entries);
    shape->scales = aligned(shape->constants + classes * outputs * sizeof(int16_t));
    shape->thresholds = aligned(shape->scales + BI_SCALES * outputs * sizeof(float));
    shape->flips = aligned(shape->thresholds + outputs * sizeof(int16_t));
    shape->row_class = aligned(shape->flips + outputs / (size_t)lanes * sizeof(uint64_t));
    shape->column_class = aligned(shape->row_class + (size_t)s->out_h * sizeof(uint16_t));
    shape->terms = aligned(shape->column_class + (size_t)s->out_w * sizeof(uint16_t));
    shape->total_bytes = aligned(shape->terms + (size_t)group.taps * sizeof(tap_terms));
    return 1;
}

/* The byte of its vector that holds a channel: the order described in lookup.h, reversed. */
static int32_t byte_of_channel(int32_t channel)
{
    int32_t odd = channel / 8 % 2, i = channel / 16 * 8 + channel % 8;
    return 2 * i + odd;
}

enum { LONGEST_PIXEL = (1 << 15) / 4 };    /* entries, since K < 2^15 */

/* Write the entries of a row of packed signs, a byte each. */
static void write_entries(const uint64_t *words, size_t word_count, int32_t entries, int32_t bits,
                          uint8_t *to)
{
    const uint64_t *end = words + word_count;
    uint64_t left = 0;      /* bits that are still to come, */
    int32_t count = 0;      /* and how many they are */
    for (int32_t e = 0; e < entries; e++) {
        uint64_t entry = left;
        if (count < bits) {
            uint64_t next = words < end ? *words++ : 0;
            entry |= next << count;
            left = next >> (bits - count);
            count += 64 - bits;
        } else {
            left >>= bits;
            count -= bits;
        }
        to[e] = (uint8_t)(entry & ((1u << bits) - 1));
    }
}

static void pack_entries(const bi_step *s, const bi_lookup *shape, const uint64_t *canonical,
                         uint8_t *weights)
{
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    size_t lanes = (size_t)shape->lanes, entries = (size_t)shape->entries;
    size_t output_words = (size_t)group.taps * group.words;
    uint8_t pixel[LONGEST_PIXEL];
    for (int32_t g = 0; g < s->groups; g++)
        for (int32_t first = 0, count; first < shape->vectors; first += count) {
            count = bi_lookup_block(shape->vectors - first);
            size_t row = (size_t)count * lanes;
            int32_t outputs = shape->outputs - first * shape->lanes;
            outputs = outputs < count * shape->lanes ? outputs : count * shape->lanes;
            const uint64_t *block =
                canonical + (size_t)(g * shape->outputs + first * shape->lanes) * output_words;
            /* Tap by tap: what is written then stays in the first-level cache. */
            for (size_t tap = 0; tap < (size_t)group.taps; tap++, weights += entries * row)
                for (int32_t o = 0; o < outputs; o++) {
                    uint8_t *to = weights + (size_t)(o / shape->lanes) * lanes +
                                  (size_t)byte_of_channel(o % shape->lanes);
                    write_entries(block + (size_t)o * output_words + tap * group.words, group.words,
                                  shape->entries, shape->entry_bits, pixel);
                    for (size_t k = 0; k < entries; k++)
                        to[k * row] = pixel[k];
                }
        }
}

static tap_terms terms_of(const bi_lookup *shape, const uint64_t *words, size_t word_count)
{
    uint8_t pixel[LONGEST_PIXEL];
    int32_t odd = 0, ones = 0;
    write_entries(words, word_count, shape->entries, shape->entry_bits, pixel);
    for (int32_t e = 0; e < shape->entries; e++)
        odd += (0x6996 >> (pixel[e] & 15) ^ 0x6996 >> (pixel[e] >> 4)) & 1; /* parity of 4 bits */
    for (size_t k = 0; k < word_count; k++)
        ones += __builtin_popcountll(words[k]);
    int32_t bits = shape->entry_bits * shape->entries;
    tap_terms terms = {
        .inside = shape->channels - 2 * bits - 2 * odd,
        .computed = (bits - ones + odd) / 2,
        .signs = shape->channels - 2 * ones,
    };
    return terms;
}

/* The constants of one output for every class; `step` is the distance from class to class. */
static void pack_constants(const bi_step *s, const bi_lookup *shape, const tap_terms *terms,
                           const uint16_t *row_class, const uint16_t *column_class, int16_t *to,
                           size_t step)
{
    for (int32_t family = 0; family < 2; family++)
        for (int32_t y = 0; y < s->out_h; y++) {
            if (!bi_begins_class(row_class, y))
                continue;
            for (int32_t x = 0; x < s->out_w; x++) {
                if (!bi_begins_class(column_class, x))
                    continue;
                bi_bconv2d_taps t = bi_bconv2d_taps_at(s, y, x);
                int32_t sum = 0;
                for (int32_t ky = 0; ky < s->kernel_h; ky++)
                    for (int32_t kx = 0; kx < s->kernel_w; kx++) {
                        const tap_terms *tap = &terms[ky * s->kernel_w + kx];
                        int row_inside = ky >= t.ky_first && ky < t.ky_end;
                        if (row_inside && kx >= t.kx_first && kx < t.kx_end) {
                            sum += tap->inside;
                            continue;
                        }
                        if (row_inside || family == 1)
                            sum -= 4 * tap->computed;
                        sum += s->pad_value * tap->signs;
                    }
                size_t index = ((size_t)family * (size_t)shape->v_classes + row_class[y]) *
                                   (size_t)shape->h_classes +
                               column_class[x];
                to[index * step] = (int16_t)(uint16_t)(uint32_t)sum;
            }
        }
}

void bi_lookup_pack(const bi_step *s, const bi_lookup *shape, const uint64_t *canonical,
                    void *packed)
{
    bi_bconv2d_shape group = bi_bconv2d_shape_of(s);
    char *base = packed;
    memset(base, 0, shape->total_bytes);
    memcpy(base, shape, sizeof *shape);
    uint16_t *row_class = (uint16_t *)(base + shape->row_class);
    uint16_t *column_class = (uint16_t *)(base + shape->column_class);
    bi_bconv2d_border_classes(s, row_class, column_class);
    pack_entries(s, shape, canonical, (uint8_t *)base + shape->weights);

    int32_t padded = shape->vectors * shape->lanes;
    size_t step = (size_t)s->groups * (size_t)padded;
    for (int32_t o = 0; o < s->out_c; o++) {
        int32_t g = o / shape->outputs, inner = o % shape->outputs, lane = inner % shape->lanes;
        int32_t byte = byte_of_channel(lane);
        size_t split = (size_t)(byte % 2) * (size_t)(shape->lanes / 2) + (size_t)(byte / 2);
        size_t vector = (size_t)(g * padded + inner - lane);
        const uint64_t *words = canonical + (size_t)o * (size_t)group.taps * group.words;
        tap_terms *terms = (tap_terms *)(base + shape->terms);
        for (int32_t tap = 0; tap < group.taps; tap++, words += group.words)
            terms[tap] = terms_of(shape, words, group.words);
        pack_constants(s, shape, terms, row_class, column_class,
                       (int16_t *)(base + shape->constants) + vector + split, step);
        size_t natural = vector + (size_t)lane;
        for (int i = 0; i < BI_SCALES; i++)
            ((float *)(base + shape->scales))[(size_t)i * step + natural] =
                bi_scale_of(s, (bi_scale)i, o);
        if (s->flip != NULL)
            ((uint64_t *)(base + shape->flips))[vector / (size_t)shape->lanes] |=
                (uint64_t)(s->flip[o] != 0) << lane;
        if (s->threshold == NULL)
            continue;
        int32_t threshold = s->threshold[o]; /* |dot| < 2^15 - 1, so these bounds decide alike */
        threshold = threshold < -INT16_MAX ? -INT16_MAX : threshold;
        threshold = threshold > INT16_MAX ? INT16_MAX : threshold;
        ((int16_t *)(base + shape->thresholds))[vector + split] = (int16_t)threshold;
    }
}
