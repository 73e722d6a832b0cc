/* check_layers.c -- signs, and what float maps go through beside convolutions. */
#include "check.h"

/* --- signs of numbers ----------------------------------------------------------------------- */

static double number_at(const buffer *source, size_t i, int32_t flags)
{
    if (flags & BI_FLAG_U8)
        return source->data[i];
    if (flags & BI_FLAG_I8)
        return ((const signed char *)source->data)[i];
    return (double)((const float *)source->data)[i];
}

void check_pack_signs(subject *k)
{
    static const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    for (int32_t channels = 1; channels <= 200; channels++)
        for (int variant = 0; variant < 18; variant++) {
            int shape = variant % 3, with_thresholds = variant / 3 % 2;
            int32_t others = variant % 4 == 1 ? random_int(1, 70) : 0;
            bi_step s = plain_step(k, shape == 2 ? 3 : 1, shape == 1 ? 4 : 1, channels);
            s.flags = variant < 6 ? 0 : variant < 12 ? BI_FLAG_U8 : BI_FLAG_I8;
            s.in_c = channels + others;
            s.channel_from = random_int(0, others);
            size_t pixels = map_size(s.in_h, s.in_w, 1), count = pixels * (size_t)s.in_c;
            current_place = (place)((channels + variant) % PLACES);
            buffer source = s.flags == 0 ? new_floats(count) : new_buffer(count, 1);
            buffer thresholds = new_floats((size_t)channels);
            for (int32_t c = 0; c < channels; c++) {
                float *t = (float *)thresholds.data + c;
                if (s.flags != 0)
                    *t = (float)random_int(-130, 257) / (float)random_int(1, 2);
                if (random_int(0, 9) == 0)
                    *t = special[random_int(0, 5)];
            }
            for (size_t i = 0; i < count; i++)
                if (s.flags != 0)
                    source.data[i] = (unsigned char)random_int(0, 255);
                else if (random_int(0, 4) == 0)
                    ((float *)source.data)[i] = special[random_int(0, 5)];
            s.bias = with_thresholds ? (const float *)thresholds.data : NULL;
            signed char *signs = must(malloc(pixels * (size_t)channels));
            for (size_t i = 0; i < pixels * (size_t)channels; i++) {
                size_t pixel = i / (size_t)channels, c = i % (size_t)channels;
                double threshold = with_thresholds ? (double)s.bias[c] : 0.0;
                size_t from = pixel * (size_t)s.in_c + (size_t)s.channel_from + c;
                signs[i] = number_at(&source, from, s.flags) < threshold ? -1 : 1;
            }
            check_signs(k, &s, source.data, signs, pixels, channels);
            free(signs);
            free_buffer(source);
            free_buffer(thresholds);
        }
}

/* --- float layers --------------------------------------------------------------------------- */

void check_beta_map(subject *k)
{
    for (int32_t i = 0; i < 400; i++) {
        window v = i % 4 ? WINDOWS[(size_t)i % COUNT(WINDOWS)] : random_window();
        int32_t groups = random_int(1, 3), channels = random_int(1, i % 5 ? 20 : 140);
        bi_step s = windowed(k, random_int(1, 7), random_int(1, 7), groups * channels, &v);
        if (s.rows == 0)
            continue;
        s.groups = s.out_c = groups;
        current_place = (place)(i % PLACES);
        buffer source = new_floats(map_size(s.in_h, s.in_w, s.in_c));
        const float *x = (const float *)source.data;
        float *wanted = must(malloc(map_size(s.out_h, s.out_w, groups) * sizeof(float)));
        for (int32_t oy = 0; oy < s.out_h; oy++)
            for (int32_t ox = 0; ox < s.out_w; ox++)
                for (int32_t g = 0; g < groups; g++) {
                    double sum = 0;
                    for (int32_t ky = 0; ky < s.kernel_h; ky++)
                        for (int32_t kx = 0; kx < s.kernel_w; kx++)
                            for (int32_t c = 0; c < channels; c++) {
                                int32_t iy = tap_y(&s, oy, ky), ix = tap_x(&s, ox, kx);
                                if (on_map(&s, iy, ix))
                                    sum += fabs(
                                        (double)x[(iy * s.in_w + ix) * s.in_c + g * channels + c]);
                            }
                    sum /= (double)channels * s.kernel_h * s.kernel_w;
                    wanted[(oy * s.out_w + ox) * groups + g] = (float)sum;
                }
        check_floats(k, &s, x, wanted, (size_t)s.out_w * (size_t)groups, 2e-5);
        free(wanted);
        free_buffer(source);
    }
}

void check_affine(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        bi_step s = plain_step(k, random_int(1, 4), random_int(1, 4), random_int(1, 70));
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        current_place = (place)(i % PLACES);
        size_t channels = (size_t)s.in_c;
        buffer source = new_floats(count),
               terms = new_buffer(3 * channels * sizeof(double), sizeof(double));
        double *mean = (double *)terms.data, *scale = mean + channels, *shift = scale + channels;
        for (size_t c = 0; c < 3 * channels; c++)
            mean[c] = (double)random_int(-99, 99) / 7;
        s.weight = mean;
        float *wanted = must(malloc(count * sizeof(float)));
        for (size_t j = 0; j < count; j++) {
            size_t c = j % channels;
            double difference = (double)((const float *)source.data)[j] - mean[c];
            double product = difference * scale[c];
            wanted[j] = (float)(product + shift[c]);
        }
        check_floats(k, &s, source.data, wanted, (size_t)s.in_w * (size_t)s.in_c, 0);
        free(wanted);
        free_buffer(source);
        free_buffer(terms);
    }
}

void check_normalize(subject *k)
{
    for (int32_t i = 0; i < 60; i++) {
        bi_step s = plain_step(k, random_int(1, 9), random_int(1, 9), random_int(1, 4));
        size_t count = map_size(s.in_h, s.in_w, s.in_c);
        current_place = (place)(i % PLACES);
        buffer source = new_buffer(count, 1), table = new_floats(256 * (size_t)s.in_c);
        float *wanted = must(malloc(count * sizeof(float)));
        s.weight = table.data;
        for (size_t j = 0; j < count; j++) {
            source.data[j] = (unsigned char)(j < 2 ? 255 * j : random_bits() >> 56);
            wanted[j] =
                ((const float *)table.data)[source.data[j] * (size_t)s.in_c + j % (size_t)s.in_c];
        }
        check_floats(k, &s, source.data, wanted, (size_t)s.in_w * (size_t)s.in_c, 0);
        free(wanted);
        free_buffer(source);
        free_buffer(table);
    }
}

/* A pooling window: no dilation, padding smaller than the kernel, no larger than the map. */
bi_step random_pool(const subject *k, int32_t channels)
{
    int32_t h = random_int(1, 8), w = random_int(1, 8);
    window v = {random_int(1, h < 4 ? h : 4),
                random_int(1, w < 4 ? w : 4),
                random_int(1, 3),
                random_int(1, 3),
                1,
                1,
                0,
                0,
                0,
                0};
    v.top = random_int(0, v.kernel_h - 1), v.bottom = random_int(0, v.kernel_h - 1);
    v.left = random_int(0, v.kernel_w - 1), v.right = random_int(0, v.kernel_w - 1);
    return windowed(k, h, w, channels, &v);
}

/* What a pool of floats gives for one output; `kind` is 'm' for the maximum. */
static float plain_pool(const bi_step *s, const float *x, int32_t oy, int32_t ox, int32_t c,
                        char kind)
{
    float sum = 0, most = -INFINITY;
    int32_t inside = 0;
    for (int32_t ky = 0; ky < s->kernel_h; ky++)
        for (int32_t kx = 0; kx < s->kernel_w; kx++) {
            int32_t y = tap_y(s, oy, ky), z = tap_x(s, ox, kx);
            if (!on_map(s, y, z))
                continue;
            float value = x[(y * s->in_w + z) * s->in_c + c];
            inside++;
            sum += value;
            if (isnan(value) || value > most)
                most = isnan(most) ? most : value;
        }
    if (kind == 'm')
        return most;
    int32_t whole = s->kernel_h * s->kernel_w;
    return sum / (float)(s->flags & BI_FLAG_COUNT_PADDING ? whole : inside);
}

static void check_pool_of_floats(subject *k, bi_step s, char kind)
{
    size_t count = map_size(s.in_h, s.in_w, s.in_c);
    buffer source = new_floats(count);
    float *x = (float *)source.data;
    if (kind == 'm' && random_int(0, 2) == 0)
        x[random_int(0, (int32_t)count - 1)] = NAN;
    float *wanted = must(malloc(map_size(s.out_h, s.out_w, s.out_c) * sizeof(float)));
    for (int32_t oy = 0; oy < s.out_h; oy++)
        for (int32_t ox = 0; ox < s.out_w; ox++)
            for (int32_t c = 0; c < s.in_c; c++)
                wanted[(oy * s.out_w + ox) * s.out_c + c] = plain_pool(&s, x, oy, ox, c, kind);
    check_floats(k, &s, x, wanted, (size_t)s.out_w * (size_t)s.out_c, 0);
    free(wanted);
    free_buffer(source);
}

void check_avg_pool2d(subject *k)
{
    for (int32_t i = 0; i < 300; i++) {
        bi_step s = random_pool(k, random_int(1, 20));
        s.flags = i % 2 ? BI_FLAG_COUNT_PADDING : 0;
        current_place = (place)(i % PLACES);
        check_pool_of_floats(k, s, 'a');
    }
}

void check_max_pool2d(subject *k)
{
    for (int32_t i = 0; i < 300; i++) {
        current_place = (place)(i % PLACES);
        check_pool_of_floats(k, random_pool(k, random_int(1, 20)), 'm');
        bi_step s = random_pool(k, random_int(1, 140));
        s.flags = BI_FLAG_BITS;
        size_t pixels = map_size(s.in_h, s.in_w, 1), outputs = map_size(s.out_h, s.out_w, s.in_c);
        signed char *signs = new_signs(pixels * (size_t)s.in_c, RANDOM);
        signed char *wanted = must(malloc(outputs));
        memset(wanted, -1, outputs);
        for (int32_t oy = 0; oy < s.out_h; oy++)
            for (int32_t ox = 0; ox < s.out_w; ox++)
                for (int32_t c = 0; c < s.in_c; c++)
                    for (int32_t t = 0; t < s.kernel_h * s.kernel_w; t++) {
                        int32_t y = tap_y(&s, oy, t / s.kernel_w),
                                x = tap_x(&s, ox, t % s.kernel_w);
                        if (on_map(&s, y, x) && signs[(y * s.in_w + x) * s.in_c + c] > 0)
                            wanted[(oy * s.out_w + ox) * s.in_c + c] = 1;
                    }
        buffer source = pack(signs, pixels, s.in_c);
        check_signs(k, &s, source.data, wanted, map_size(s.out_h, s.out_w, 1), s.in_c);
        free(signs);
        free(wanted);
        free_buffer(source);
    }
}

void check_flatten(subject *k)
{
    for (int32_t i = 0; i < 240; i++) {
        bi_step s = plain_step(k, random_int(1, 4), random_int(1, 4), random_int(1, 70));
        size_t pixels = map_size(s.in_h, s.in_w, 1), channels = (size_t)s.in_c;
        size_t count = pixels * channels;
        int first = i % 2, bits = i / 2 % 2;
        s.out_h = s.out_w = s.rows = 1;
        s.out_c = (int32_t)count;
        s.flags = (first ? BI_FLAG_CHANNELS_FIRST : 0) | (bits ? BI_FLAG_BITS : 0);
        current_place = (place)(i % PLACES);
        buffer source = new_floats(count);
        const float *x = (const float *)source.data;
        signed char *signs = new_signs(count, RANDOM), *wanted_signs = must(malloc(count));
        float *wanted = must(malloc(count * sizeof(float)));
        for (size_t p = 0; p < pixels; p++)
            for (size_t c = 0; c < channels; c++) {
                size_t to = first ? c * pixels + p : p * channels + c;
                wanted[to] = x[p * channels + c];
                wanted_signs[to] = signs[p * channels + c];
            }
        buffer packed = pack(signs, pixels, s.in_c);
        if (bits)
            check_signs(k, &s, packed.data, wanted_signs, 1, s.out_c);
        else
            check_floats(k, &s, x, wanted, count, 0);
        free(signs);
        free(wanted_signs);
        free(wanted);
        free_buffer(source);
        free_buffer(packed);
    }
}

void check_softmax(subject *k)
{
    for (int32_t i = 0; i < 100; i++) {
        bi_step s = plain_step(k, 1, 1, random_int(1, 200));
        size_t count = (size_t)s.in_c;
        current_place = (place)(i % PLACES);
        buffer source = new_floats(count);
        float *x = (float *)source.data, *wanted = must(malloc(count * sizeof(float)));
        double sum = 0, most = -INFINITY;
        for (size_t j = 0; j < count; j++)
            x[j] *= (float)(1 << i % 6);
        for (size_t j = 0; j < count; j++)
            most = fmax(most, (double)x[j]);
        for (size_t j = 0; j < count; j++)
            sum += exp((double)x[j] - most);
        for (size_t j = 0; j < count; j++)
            wanted[j] = (float)(exp((double)x[j] - most) / sum);
        check_floats(k, &s, x, wanted, count, 2e-5);
        free(wanted);
        free_buffer(source);
    }
}
