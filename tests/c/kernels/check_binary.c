/* check_binary.c -- binary convolution and dense layers, with every epilogue. */
#include "check.h"

/* The epilogue of a case, as one number: a sum of flags, an activation and a kind of target. */
enum {
    ALPHA = 1,
    BIAS = 2,
    BETA = 4,
    RESIDUAL = 8,
    FLOOR = 16,
    ACTIVATION = 32,    /* times one of the BI_ACTIVATION_* */
    ACTIVATIONS = BI_ACTIVATION_SIGMOID + 1,
    TARGET = 256,       /* times one of the next */
    FLOATS = 0,
    SIGNS_OF_INTEGERS,
    SIGNS_OF_FLOATS,
    FLOATS_AND_SIGNS,
    TARGETS,
};

static int random_epilogue(void)
{
    return random_int(0, ACTIVATION - 1) + ACTIVATION * random_int(0, ACTIVATIONS - 1) +
           TARGET * random_int(0, TARGETS - 1);
}

typedef struct {
    buffer alpha, bias, floor, slope, shift_in, shift_out, beta, residual, threshold,
        sign_threshold, flip;
} scales;

/* A float for a comparison with results: often their least distance from it is 0. */
static float random_limit(int32_t bound)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    int kind = random_int(0, 15);
    if (kind == 0)
        return special[random_int(0, 4)];
    return kind < 8 ? (float)random_int(-bound, bound) : (float)bound * random_float() / 4;
}

/* Give the step what the epilogue names; `bound` is the greatest result. */
static scales new_scales(bi_step *s, int epilogue, int32_t bound)
{
    size_t count = (size_t)s->out_c, pixels = map_size(s->out_h, s->out_w, 1);
    int target = epilogue / TARGET;
    scales e = {
        .alpha = new_floats(count),
        .bias = new_floats(count),
        .floor = new_floats(count),
        .slope = new_floats(count),
        .shift_in = new_floats(count),
        .shift_out = new_floats(count),
        .beta = new_floats(pixels * (size_t)s->groups),
        .residual = new_floats(pixels * count + (pixels - 1) * (size_t)s->residual_gap),
        .threshold = new_buffer(count * sizeof(int32_t), sizeof(int32_t)),
        .sign_threshold = new_floats(count),
        .flip = new_buffer(count, 1),
    };
    for (size_t o = 0; o < count; o++) {
        static const int32_t extremes[] = {INT32_MIN, INT32_MAX};
        int32_t threshold = random_int(-bound - 2, bound + 2) / random_int(1, 8);
        if (random_int(0, 15) == 0)
            threshold = extremes[random_int(0, 1)];
        ((int32_t *)e.threshold.data)[o] = threshold;
        ((float *)e.sign_threshold.data)[o] = random_limit(bound);
        ((float *)e.floor.data)[o] = random_limit(bound);
        e.flip.data[o] = (unsigned char)random_int(0, 1);
        if (random_int(0, 31) == 0)
            ((float *)e.bias.data)[o] = random_int(0, 1) ? NAN : -INFINITY;
    }
    s->alpha = epilogue & ALPHA ? (const float *)e.alpha.data : NULL;
    s->bias = epilogue & BIAS ? (const float *)e.bias.data : NULL;
    s->floor = epilogue & FLOOR ? (const float *)e.floor.data : NULL;
    s->has_beta = (epilogue & BETA) != 0;
    s->has_residual = (epilogue & RESIDUAL) != 0;
    s->activation = epilogue / ACTIVATION % (TARGET / ACTIVATION);
    s->slope = (const float *)e.slope.data;
    s->shift_in = (const float *)e.shift_in.data;
    s->shift_out = (const float *)e.shift_out.data;
    s->low = random_float();
    s->high = s->low + 1;
    if (target == SIGNS_OF_INTEGERS)
        s->threshold = (const int32_t *)e.threshold.data;
    else if (target != FLOATS)
        s->sign_threshold = (const float *)e.sign_threshold.data;
    s->has_signs = target == FLOATS_AND_SIGNS;
    s->flip = target != FLOATS ? e.flip.data : NULL;
    return e;
}

static void free_scales(scales e)
{
    buffer all[] = {e.alpha, e.bias,     e.floor,     e.slope,          e.shift_in, e.shift_out,
                    e.beta,  e.residual, e.threshold, e.sign_threshold, e.flip};
    for (size_t i = 0; i < COUNT(all); i++)
        free_buffer(all[i]);
}

static float activated(const bi_step *s, float y, int32_t o)
{
    switch ((bi_activation)s->activation) {
    case BI_ACTIVATION_NONE: return y;
    case BI_ACTIVATION_RELU: return y > 0 ? y : 0.0f;
    case BI_ACTIVATION_PRELU: return y < 0 ? y * s->slope[o] : y;
    case BI_ACTIVATION_CLIP: {
        float raised = y > s->low ? y : s->low;
        return raised < s->high ? raised : s->high;
    }
    case BI_ACTIVATION_RPRELU: {
        float shifted = y + s->shift_in[o];
        float bent = shifted < 0 ? shifted * s->slope[o] : shifted;
        return bent + s->shift_out[o];
    }
    case BI_ACTIVATION_SIGMOID: return (float)(1.0 / (1.0 + exp(-(double)y)));
    }
    abort();
}

static float scaled(const bi_step *s, const scales *e, int32_t dot, int32_t pixel, int32_t o)
{
    int32_t group = o / (s->out_c / s->groups);
    float y = (float)dot;
    if (s->floor != NULL && !(y > s->floor[o]))
        y = s->floor[o];
    if (s->alpha != NULL)
        y = y * s->alpha[o];
    if (s->has_beta)
        y = y * ((const float *)e->beta.data)[pixel * s->groups + group];
    if (s->bias != NULL)
        y = y + s->bias[o];
    if (s->has_residual)
        y = y + ((const float *)e->residual.data)[pixel * (s->out_c + s->residual_gap) + o];
    return activated(s, y, o);
}

/* Take floats that lie `gap` others apart, pixel by pixel, to where there is no gap.  What lies between must be as
 * it was. */
static const char *close_gaps(buffer floats, const unsigned char *before, size_t pixels,
                              size_t channels, size_t gap, float *to)
{
    const size_t step = channels + gap, size = sizeof(float);
    const char *wrong = NULL;
    for (size_t i = 0; i < pixels; i++) {
        memcpy(to + i * channels, floats.data + i * step * size, channels * size);
        size_t behind = (i * step + channels) * size;
        if (i + 1 < pixels && memcmp(floats.data + behind, before + behind, gap * size) != 0)
            wrong = "another channel of the joined map was written to";
    }
    return wrong;
}

/* Compare a binary layer with its integer results, [pixel][output]; a row has row_pixels pixels, or
 * (0) a block of 64 outputs. */
static void check_results(subject *k, const bi_step *s, const scales *e, const void *source,
                          const int32_t *dots, size_t row_pixels)
{
    size_t pixels = map_size(s->out_h, s->out_w, 1), channels = (size_t)s->out_c;
    size_t count = pixels * channels, words = (channels + 63) / 64;
    int has_signs = s->threshold != NULL || s->sign_threshold != NULL;
    int has_floats = !has_signs || s->has_signs;
    float *wanted = must(malloc(count * sizeof(float)));
    signed char *wanted_signs = must(malloc(count));
    for (size_t i = 0; i < count; i++) {
        int32_t pixel = (int32_t)(i / channels), o = (int32_t)(i % channels);
        wanted[i] = scaled(s, e, dots[i], pixel, o);
        int below = s->threshold != NULL ? dots[i] < s->threshold[o]
                                         : has_signs && wanted[i] < s->sign_threshold[o];
        wanted_signs[i] = below != (has_signs && s->flip[o] != 0) ? -1 : 1;
    }
    const size_t gap = (size_t)s->target_gap, stored = (count + (pixels - 1) * gap) * sizeof(float);
    float *got = must(malloc(count * sizeof(float)));
    buffer floats = new_buffer(has_floats ? stored : 0, sizeof(float));
    unsigned char *before = must(malloc(stored));
    if (has_floats)
        memcpy(before, floats.data, stored);
    buffer signs = new_buffer(has_signs ? pixels * words * 8 : 0, 8);
    output_rows none = {0};
    output_rows float_rows = {floats.data, stored,
                              (row_pixels != 0 ? row_pixels * (channels + gap) : 64) *
                                  sizeof(float)};
    output_rows sign_rows = {signs.data, pixels * words * 8,
                             (row_pixels != 0 ? row_pixels * words : 1) * 8};
    inputs in = {
        .source = source,
        .beta = s->has_beta ? (const float *)e->beta.data : NULL,
        .residual = s->has_residual ? (const float *)e->residual.data : NULL,
    };
    const char *wrong = run_in_parts(s, &in, has_floats ? float_rows : sign_rows,
                                     has_floats && has_signs ? sign_rows : none);
    if (wrong == NULL && has_floats)
        wrong = close_gaps(floats, before, pixels, channels, gap, got);
    if (wrong == NULL && has_floats)
        wrong = compare_floats(got, wanted, count, 0);
    if (wrong == NULL && has_signs)
        wrong = compare_signs((const uint64_t *)signs.data, wanted_signs, pixels, s->out_c);
    count_case(k, s, wrong);
    free(got);
    free(before);
    free(wanted);
    free(wanted_signs);
    free_buffer(floats);
    free_buffer(signs);
}

static int32_t plain_dot(const bi_step *s, const signed char *source, const signed char *weight,
                         int32_t oy, int32_t ox, int32_t o)
{
    int32_t channels = s->in_c / s->groups, group = o / (s->out_c / s->groups), dot = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++)
            for (int32_t c = 0; c < channels; c++) {
                int32_t y = tap_y(s, oy, ky), x = tap_x(s, ox, kx), value = s->pad_value;
                if (on_map(s, y, x))
                    value = source[(y * s->in_w + x) * s->in_c + group * channels + c];
                dot += value * weight[((o * s->kernel_h + ky) * s->kernel_w + kx) * channels + c];
            }
    return dot;
}

/* Let floats, and the residual, be some of the channels of joined maps now and then, where the kernel can. */
static void join_maps(const subject *k, bi_step *s, int epilogue)
{
    int target = epilogue / TARGET;
    if (!bi_kernel_at(k->kernel)->leaves_gaps)
        return;
    if (target == FLOATS || target == FLOATS_AND_SIGNS)
        s->target_gap = random_int(0, 1) * random_int(0, 70);
    if (epilogue & RESIDUAL)
        s->residual_gap = random_int(0, 1) * random_int(0, 70);
}

static void check_bconv2d_case(subject *k, bi_step s, fill source_fill, fill weight_fill,
                               int epilogue)
{
    int32_t channels = s.in_c / s.groups;
    size_t outputs = map_size(s.out_h, s.out_w, s.out_c), pixels = map_size(s.in_h, s.in_w, 1);
    size_t weight_rows = (size_t)s.out_c * (size_t)s.kernel_h * (size_t)s.kernel_w;
    signed char *source_signs = new_signs(pixels * (size_t)s.in_c, source_fill);
    signed char *weight_signs = new_signs(weight_rows * (size_t)channels, weight_fill);
    buffer source = pack(source_signs, pixels, s.in_c);
    buffer canonical = pack(weight_signs, weight_rows, channels);
    join_maps(k, &s, epilogue);
    scales e = new_scales(&s, epilogue, s.kernel_h * s.kernel_w * channels);
    buffer packed = {0};
    if (is_taken(&s)) {
        packed = bind_weight(&s, canonical.data);
        int32_t *dots = must(malloc(outputs * sizeof(int32_t)));
        for (int32_t oy = 0; oy < s.out_h; oy++)
            for (int32_t ox = 0; ox < s.out_w; ox++)
                for (int32_t o = 0; o < s.out_c; o++)
                    dots[(oy * s.out_w + ox) * s.out_c + o] =
                        plain_dot(&s, source_signs, weight_signs, oy, ox, o);
        check_results(k, &s, &e, source.data, dots, (size_t)s.out_w);
        free(dots);
    }
    free(source_signs);
    free(weight_signs);
    free_scales(e);
    buffer all[] = {source, canonical, packed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_buffer(all[i]);
}

/* Every activation with every kind of target, for channel counts about the widths of vectors and
 * words. */
static const int32_t EDGES[] = {1, 31, 32, 33, 63, 64, 65, 100, 128, 130, 192, 257};

static int epilogue_of(size_t number)
{
    size_t activation = number % ACTIVATIONS, target = number / ACTIVATIONS % TARGETS;
    return random_int(0, ACTIVATION - 1) + (int)activation * ACTIVATION + (int)target * TARGET;
}

static void check_bconv2d_epilogues(subject *k)
{
    for (size_t i = 0; i < COUNT(EDGES) * ACTIVATIONS * TARGETS; i++) {
        window v = WINDOWS[i % 3 == 0 ? 0 : 3];
        int32_t groups = i % 5 == 0 ? 2 : 1;
        int32_t out_c = EDGES[i / (ACTIVATIONS * TARGETS)];
        bi_step s = windowed(k, 2, random_int(1, 4), groups * random_int(1, 40), &v);
        s.groups = groups;
        s.out_c = groups * out_c;
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM, epilogue_of(i));
        check_bconv2d_case(k, s, RANDOM, RANDOM,    /* a layer of Bi-Real-Net */
                           ALPHA + BIAS + RESIDUAL + FLOATS_AND_SIGNS * TARGET);
    }
}

/* Maps of which several vectors of pixels are computed at once, and rows that do not fill them. */
static void check_bconv2d_maps(subject *k)
{
    for (int32_t i = 0; i < random_cases / 4; i++) {
        window v = i % 2 ? WINDOWS[(size_t)i % COUNT(WINDOWS)] : random_window();
        bi_step s = windowed(k, random_int(4, 18), random_int(4, 18), random_int(1, 70), &v);
        if (s.rows == 0)
            continue;
        s.out_c = i % 5 ? random_int(1, 40) : random_int(41, 66);
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM,
                           i % 3 ? random_epilogue() : epilogue_of((size_t)i));
    }
}

void check_bconv2d(subject *k)
{
    for (size_t c = 0; c < COUNT(CHANNELS); c++)
        for (size_t v = 0; v < COUNT(WINDOWS); v++)
            for (int32_t pad_value = -1; pad_value <= 1; pad_value++) {
                bi_step s = windowed(k, 5, 4, CHANNELS[c], &WINDOWS[v]);
                if (s.rows == 0)
                    continue;
                s.out_c = OUTPUTS[(c * COUNT(WINDOWS) + v) % COUNT(OUTPUTS)];
                s.pad_value = pad_value;
                current_place = (place)((c + v) % PLACES);
                check_bconv2d_case(k, s, RANDOM, RANDOM, 0);
            }
    for (int32_t i = 0; i < 3000; i++) {
        window v = random_window();
        int32_t groups = i % 2 ? random_int(1, 4) : 1;
        int32_t channels = random_int(1, i % 3 ? 40 : 140);
        bi_step s = windowed(k, random_int(1, 8), random_int(1, 8), groups * channels, &v);
        if (s.rows == 0)
            continue;
        s.groups = groups;
        s.out_c = groups * random_int(1, groups > 1 ? 5 : 20);
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM, random_int(0, 7));
    }
    /* Blocks of outputs, epilogues, signs; sums over several parts of K. */
    for (int32_t i = 0; i < random_cases; i++) {
        window v = i % 2 ? WINDOWS[(size_t)i % COUNT(WINDOWS)] : random_window();
        int32_t groups = i % 3 ? 1 : random_int(2, 3), outputs = random_int(1, 5 * 32);
        if (groups > 1)
            outputs = i % 2 ? 16 * random_int(1, 5) : random_int(1, 40);
        bi_step s = windowed(k, random_int(1, 6), random_int(1, 7),
                             groups * random_int(1, i % 10 ? 70 : 300), &v);
        if (s.rows == 0)
            continue;
        s.groups = groups;
        s.out_c = groups * outputs;
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM, random_epilogue());
    }
    check_bconv2d_maps(k);
    check_bconv2d_epilogues(k);
    /* Everything that is decided by the number of outputs. */
    int32_t sizes[BLOCK_SIZES];
    block_sizes(k, sizes);
    for (int32_t i = 0; i < 12 * BLOCK_SIZES; i++) {
        bi_step s = windowed(k, random_int(1, 5), random_int(1, 6), random_int(1, 80),
                             &WINDOWS[(size_t)i % COUNT(WINDOWS)]);
        if (s.rows == 0)
            continue;
        s.out_c = sizes[i / 12];
        s.pad_value = random_int(-1, 1);
        current_place = (place)(i % PLACES);
        check_bconv2d_case(k, s, RANDOM, RANDOM, random_epilogue());
    }
    /* The greatest and least sums, around where counts in bytes overflow: 32 words. */
    static const int32_t words[] = {1, 30, 31, 32, 33, 62, 63, 94};
    for (size_t i = 0; i < COUNT(words); i++)
        for (int shape = 0; shape < 3; shape++)
            for (int equal = 0; equal < 2; equal++) {
                window v = {
                    shape == 2 ? words[i] : 1, shape == 1 ? words[i] : 1, 1, 1, 1, 1, 0, 0, 0, 0};
                bi_step s =
                    windowed(k, v.kernel_h, v.kernel_w + 1, shape == 0 ? 64 * words[i] : 64, &v);
                s.out_c = 5;
                if (!is_taken(&s))
                    s.out_c = 2 * bi_kernel_block(k->kernel);
                current_place = (place)(i % PLACES);
                check_bconv2d_case(k, s, ALL_NEGATIVE, equal ? ALL_NEGATIVE : ALL_POSITIVE, 0);
            }
}

static void check_bdense_case(subject *k, int32_t length, int32_t outputs, fill source_fill,
                              fill weight_fill, int epilogue)
{
    bi_step s = plain_step(k, 1, 1, length);
    s.out_c = outputs;
    s.rows = (outputs + 63) / 64;
    signed char *source_signs = new_signs((size_t)length, source_fill);
    signed char *weight_signs = new_signs((size_t)length * (size_t)outputs, weight_fill);
    buffer source = pack(source_signs, 1, length);
    buffer canonical = pack(weight_signs, (size_t)outputs, length);
    scales e = new_scales(&s, epilogue, length);
    buffer packed = bind_weight(&s, canonical.data);
    int32_t *dots = must(malloc((size_t)outputs * sizeof(int32_t)));
    for (int32_t o = 0; o < outputs; o++) {
        dots[o] = 0;
        for (int32_t i = 0; i < length; i++)
            dots[o] += source_signs[i] * weight_signs[o * length + i];
    }
    check_results(k, &s, &e, source.data, dots, 0);
    free(dots);
    free(source_signs);
    free(weight_signs);
    free_scales(e);
    buffer all[] = {source, canonical, packed};
    for (size_t i = 0; i < COUNT(all); i++)
        free_buffer(all[i]);
}

/* A batch gives what its samples give one by one. */
static void check_bdense_batch(subject *k, int32_t length, int32_t outputs, int epilogue)
{
    enum { SAMPLES = 7 };
    const bi_kernel *kernel = bi_kernel_at(k->kernel);
    bi_step s = plain_step(k, 1, 1, length);
    s.out_c = outputs;
    s.rows = (outputs + 63) / 64;
    size_t samples = (size_t)random_int(0, SAMPLES), target_bytes = (size_t)s.rows * 64 * 4;
    signed char *weight_signs = new_signs((size_t)length * (size_t)outputs, RANDOM);
    buffer canonical = pack(weight_signs, (size_t)outputs, length);
    scales e = new_scales(&s, epilogue, length);
    buffer packed = bind_weight(&s, canonical.data);
    bi_pointers at[SAMPLES], alone[SAMPLES];
    buffer sources[SAMPLES], targets[2][SAMPLES], signs[2][SAMPLES];
    for (size_t n = 0; n < SAMPLES; n++) {
        signed char *source_signs = new_signs((size_t)length, RANDOM);
        sources[n] = pack(source_signs, 1, length);
        free(source_signs);
        for (int i = 0; i < 2; i++) {
            targets[i][n] = new_buffer(target_bytes, 8);
            signs[i][n] = new_buffer((size_t)s.rows * 8, 8);
        }
        at[n] = (bi_pointers){
            .source = sources[n].data,
            .beta = s.has_beta ? (const float *)e.beta.data : NULL,
            .residual = s.has_residual ? (const float *)e.residual.data : NULL,
            .target = targets[0][n].data,
            .signs = s.has_signs ? (uint64_t *)signs[0][n].data : NULL,
        };
        alone[n] = at[n];
        alone[n].target = targets[1][n].data;
        alone[n].signs = s.has_signs ? (uint64_t *)signs[1][n].data : NULL;
        if (n < samples)
            kernel->run(&s, &alone[n], 0, s.rows);
    }
    int32_t middle = random_int(0, s.rows);
    kernel->run_batch(&s, at, samples, middle, s.rows);
    kernel->run_batch(&s, at, samples, 0, middle);
    const char *wrong = NULL;
    for (size_t n = 0; n < SAMPLES; n++) {
        if (memcmp(targets[0][n].data, targets[1][n].data, target_bytes) != 0 ||
            memcmp(signs[0][n].data, signs[1][n].data, (size_t)s.rows * 8) != 0)
            wrong = "a batch differs from its samples";
        free_buffer(sources[n]);
        for (int i = 0; i < 2; i++) {
            free_buffer(targets[i][n]);
            free_buffer(signs[i][n]);
        }
    }
    count_case(k, &s, wrong);
    free(weight_signs);
    free_scales(e);
    free_buffer(canonical);
    free_buffer(packed);
}

void check_bdense(subject *k)
{
    for (int32_t i = 0; i < 300 && bi_kernel_at(k->kernel)->run_batch != NULL; i++) {
        current_place = (place)(i % PLACES);
        check_bdense_batch(k, random_int(1, 600), random_int(1, 150), random_epilogue());
    }
    for (size_t i = 0; i < COUNT(EDGES) * ACTIVATIONS * TARGETS; i++) {
        current_place = (place)(i % PLACES);
        check_bdense_case(k, random_int(1, 300), EDGES[i / (ACTIVATIONS * TARGETS)], RANDOM, RANDOM,
                          epilogue_of(i));
    }
    for (int32_t power = 1; power <= 4096; power *= 2)
        for (int32_t times = 1; times <= 3; times++)
            for (int32_t offset = -1; offset <= 1; offset++) {
                int32_t length = power * times + offset;
                if (length < 1 || length > 4200)
                    continue;
                current_place = (place)(length % PLACES);
                check_bdense_case(k, length, random_int(1, 9), RANDOM, RANDOM, random_epilogue());
                check_bdense_case(k, length, 2, ALL_NEGATIVE, ALL_POSITIVE, 0);
                check_bdense_case(k, length, 2, ALL_NEGATIVE, ALL_NEGATIVE, 0);
            }
    for (size_t o = 0; o < COUNT(OUTPUTS); o++)
        for (size_t c = 0; c < COUNT(CHANNELS); c++) {
            current_place = (place)((o + c) % PLACES);
            check_bdense_case(k, CHANNELS[c], OUTPUTS[o], RANDOM, RANDOM, random_epilogue());
        }
    for (int32_t outputs = 1; outputs <= 200; outputs++) {
        current_place = (place)(outputs % PLACES);
        check_bdense_case(k, random_int(1, 300), outputs, RANDOM, RANDOM, random_epilogue());
        check_bdense_case(k, 64 * random_int(1, 130), outputs, RANDOM, RANDOM,
                          SIGNS_OF_INTEGERS * TARGET);
    }
    for (int32_t i = 0; i < random_cases; i++) {
        current_place = (place)(i % PLACES);
        check_bdense_case(k, random_int(1, 400), random_int(1, 40), RANDOM, RANDOM,
                          random_epilogue());
    }
}
