/* check_maps.c -- operations on every element alone, and those that move pixels or channels. */
#include "../../../csrc/kernels/epilogue.h"
#include "check.h"

/* A step on a small random map, and a source for it on the current place. */
static bi_step random_map(subject *k, int32_t i, buffer *source)
{
    bi_step s = plain_step(k, random_int(1, 4), random_int(1, 4), random_int(1, 70));
    current_place = (place)(i % PLACES);
    *source = new_floats(map_size(s.in_h, s.in_w, s.in_c));
    return s;
}

static void finish(subject *k, const bi_step *s, buffer source, float *wanted)
{
    check_floats(k, s, source.data, wanted, (size_t)s->out_w * (size_t)s->out_c, 0);
    free(wanted);
    free_buffer(source);
}

static float *new_wanted(const bi_step *s)
{
    return must(malloc(map_size(s->out_h, s->out_w, s->out_c) * sizeof(float)));
}

void check_activate(subject *k)
{
    for (int32_t i = 0; i < 300; i++) {
        buffer source;
        bi_step s = random_map(k, i, &source);
        float *x = (float *)source.data, *wanted = new_wanted(&s);
        size_t count = map_size(s.in_h, s.in_w, s.in_c), channels = (size_t)s.in_c;
        x[random_int(0, (int32_t)count - 1)] = NAN;
        buffer shift_in = new_floats(channels), slope = new_floats(channels);
        buffer shift_out = new_floats(channels);
        s.activation = BI_ACTIVATION_RELU + i % 5;
        s.shift_in = (const float *)shift_in.data;
        s.slope = (const float *)slope.data;
        s.shift_out = (const float *)shift_out.data;
        s.low = -0.5f;
        s.high = 0.75f;
        for (size_t j = 0; j < count; j++) {
            size_t c = j % channels;
            float y = x[j], moved = y + s.shift_in[c];
            switch ((bi_activation)s.activation) {
            case BI_ACTIVATION_NONE: break;
            case BI_ACTIVATION_RELU: y = y > 0 ? y : 0.0f; break;
            case BI_ACTIVATION_PRELU: y = y < 0 ? y * s.slope[c] : y; break;
            case BI_ACTIVATION_CLIP: y = y > s.low ? y < s.high ? y : s.high : s.low; break;
            case BI_ACTIVATION_RPRELU:
                y = (moved < 0 ? moved * s.slope[c] : moved) + s.shift_out[c];
                break;
            case BI_ACTIVATION_SIGMOID: y = (float)(1 / (1 + exp(-(double)y))); break;
            }
            wanted[j] = y;
        }
        finish(k, &s, source, wanted);
        buffer all[] = {shift_in, slope, shift_out};
        for (size_t j = 0; j < COUNT(all); j++)
            free_buffer(all[j]);
    }
}

/* Sum or product with a map, or with a vector at every pixel. */
void check_pairwise(subject *k)
{
    for (int32_t i = 0; i < 200; i++) {
        buffer source;
        bi_step s = random_map(k, i, &source);
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        s.flags = i % 2 ? BI_FLAG_VECTOR : 0;
        s.has_residual = 1;
        size_t others = i % 2 ? (size_t)s.in_c : count;
        buffer other = new_floats(others), result = new_buffer(count * 4, 4);
        float *wanted = new_wanted(&s);
        const float *x = (const float *)source.data, *y = (const float *)other.data;
        for (size_t j = 0; j < count; j++) {
            float operand = y[j % others];
            wanted[j] = strcmp(k->name, "add") == 0 ? x[j] + operand : x[j] * operand;
        }
        inputs in = {.source = x, .residual = y};
        output_rows rows = {result.data, count * 4, (size_t)s.in_w * (size_t)s.in_c * 4};
        const char *wrong = run_in_parts(&s, &in, rows, (output_rows){0});
        if (wrong == NULL)
            wrong = compare_floats((const float *)result.data, wanted, count, 0);
        count_case(k, &s, wrong);
        free(wanted);
        buffer all[] = {source, other, result};
        for (size_t j = 0; j < COUNT(all); j++)
            free_buffer(all[j]);
    }
}

void check_quantize(subject *k)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 0.5f, 1.5f, -2.5f};
    for (int32_t i = 0; i < 100; i++) {
        buffer source;
        bi_step s = random_map(k, i, &source);
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        float *x = (float *)source.data;
        s.low = i % 2 ? 1.0f / 128 : 1.0f;
        for (size_t j = 0; j < count; j++)
            if (random_int(0, 3) == 0)
                x[j] = special[random_int(0, 7)];
        buffer result = new_buffer(count, 1);
        inputs in = {.source = x};
        output_rows rows = {result.data, count, (size_t)s.in_w * (size_t)s.in_c};
        const char *wrong = run_in_parts(&s, &in, rows, (output_rows){0});
        for (size_t j = 0; j < count; j++) {
            double q = (double)x[j] / (double)s.low, whole = floor(q);
            if (q - whole > 0.5 || (q - whole == 0.5 && fmod(whole, 2) != 0))
                whole += 1;
            int wanted = isnan(q) ? 0 : q > 127 ? 127 : q < -128 ? -128 : (int)whole;
            wanted = wanted > 127 ? 127 : wanted;
            if ((signed char)result.data[j] != wanted)
                wrong = "a number is rounded wrongly";
        }
        count_case(k, &s, wrong);
        free_buffer(result);
        free_buffer(source);
    }
}

/* Two steps fill one target. */
void check_copy_channels(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        buffer source;
        bi_step s = random_map(k, i, &source);
        s.out_c = s.in_c + random_int(0, 9);
        s.channel_count = random_int(1, s.in_c);
        s.channel_from = random_int(0, s.in_c - s.channel_count);
        s.channel_to = random_int(0, s.out_c - s.channel_count);
        size_t count = map_size(s.out_h, s.out_w, s.out_c);
        buffer target = new_floats(count);
        float *wanted = new_wanted(&s);
        memcpy(wanted, target.data, count * sizeof *wanted);
        for (size_t p = 0; p < map_size(s.in_h, s.in_w, 1); p++)
            for (int32_t c = 0; c < s.channel_count; c++)
                wanted[(int32_t)p * s.out_c + s.channel_to + c] =
                    ((const float *)source.data)[(int32_t)p * s.in_c + s.channel_from + c];
        bi_pointers at = {.source = source.data, .target = target.data};
        bi_kernel_at(s.kernel)->run(&s, &at, 1, s.rows);
        bi_kernel_at(s.kernel)->run(&s, &at, 0, 1);
        count_case(k, &s, compare_floats((const float *)target.data, wanted, count, 0));
        free(wanted);
        free_buffer(target);
        free_buffer(source);
    }
}

void check_shuffle_channels(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        int32_t groups = random_int(1, 5);
        bi_step s = plain_step(k, random_int(1, 3), random_int(1, 3), groups * random_int(1, 20));
        s.groups = groups;
        current_place = (place)(i % PLACES);
        buffer source = new_floats(map_size(s.in_h, s.in_w, s.in_c));
        float *wanted = new_wanted(&s);
        for (size_t j = 0; j < map_size(s.in_h, s.in_w, s.in_c); j++) {
            size_t c = j % (size_t)s.in_c, first = j - c, per_group = (size_t)(s.in_c / groups);
            size_t to = c % per_group * (size_t)groups + c / per_group;
            wanted[first + to] = ((const float *)source.data)[j];
        }
        finish(k, &s, source, wanted);
    }
}

void check_pad2d(subject *k)
{
    for (int32_t i = 0; i < 200; i++) {
        buffer source;
        bi_step s = random_map(k, i, &source);
        int32_t h = s.in_h, w = s.in_w, is_bits = i % 2;
        s.pad_top = random_int(0, 3);
        s.pad_left = random_int(0, 3);
        s.out_h = s.rows = h + s.pad_top + random_int(0, 3);
        s.out_w = w + s.pad_left + random_int(0, 3);
        s.low = is_bits ? (i % 4 == 1 ? -1.0f : 1.0f) : random_float();
        s.flags = is_bits ? BI_FLAG_BITS : 0;
        size_t pixels = map_size(s.out_h, s.out_w, 1), channels = (size_t)s.in_c;
        signed char *from = new_signs(map_size(h, w, s.in_c), RANDOM);
        signed char *signs = must(malloc(pixels * channels));
        float *wanted = new_wanted(&s);
        for (size_t j = 0; j < pixels * channels; j++) {
            int32_t p = (int32_t)(j / channels), c = (int32_t)(j % channels);
            int32_t y = p / s.out_w - s.pad_top, x = p % s.out_w - s.pad_left;
            int inside = y >= 0 && y < h && x >= 0 && x < w;
            int32_t at = (y * w + x) * s.in_c + c;
            wanted[j] = inside ? ((const float *)source.data)[at] : s.low;
            signs[j] = inside ? from[at] : s.low < 0 ? -1 : 1;
        }
        if (is_bits) {
            buffer packed = pack(from, (size_t)(h * w), s.in_c);
            check_signs(k, &s, packed.data, signs, pixels, s.in_c);
            free_buffer(packed);
            free(wanted);
            free_buffer(source);
        } else
            finish(k, &s, source, wanted);
        free(from);
        free(signs);
    }
}

void check_global_pool2d(subject *k)
{
    for (int32_t i = 0; i < 200; i++) {
        buffer source;
        bi_step s = random_map(k, i, &source);
        s.flags = i % 2 ? BI_FLAG_MAXIMUM : 0;
        s.out_h = s.out_w = s.rows = 1;
        int32_t pixels = s.in_h * s.in_w;
        float *wanted = new_wanted(&s);
        for (int32_t c = 0; c < s.in_c; c++) {
            double sum = 0, largest = -INFINITY;
            for (int32_t p = 0; p < pixels; p++) {
                double x = (double)((const float *)source.data)[p * s.in_c + c];
                sum += x;
                largest = x > largest ? x : largest;
            }
            wanted[c] = (float)(i % 2 ? largest : sum / pixels);
        }
        finish(k, &s, source, wanted);
    }
}
