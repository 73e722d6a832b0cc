/* neon_instructions.c -- runs one binary layer some times; neon_instructions.py counts what that takes.
 *
 *     neon_instructions METHOD IN_CHANNELS OUT_CHANNELS MAP KERNEL STRIDE ENDING RUNS
 *
 * MAP x MAP pixels, padded by half the kernel.  ENDING: signs, plain (floats), or shortcut (floats with
 * shortcut, RPReLU and signs).  Prints the method that the layer gets where none is forced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitinfer.h"

static void *room(size_t bytes)
{
    bytes = (bytes + 127) / 64 * 64;
    void *new = aligned_alloc(64, bytes);
    if (new == NULL)
        exit(1);
    return memset(new, 0, bytes);
}

static float *floats(size_t count)
{
    float *x = room(count * sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(rand() % 200 - 100) / 7;
    return x;
}

static uint64_t *signs(size_t pixels, int32_t channels)
{
    size_t words = (size_t)(channels + 63) / 64;
    uint64_t *x = room(pixels * words * sizeof *x);
    for (size_t i = 0; i < pixels * (size_t)channels; i++)
        x[i / (size_t)channels * words + i % (size_t)channels / 64] |= (uint64_t)(rand() & 1)
                                                                       << i % (size_t)channels % 64;
    return x;
}

static void finish(bi_step *s, const char *ending)
{
    size_t count = (size_t)s->out_c;
    if (strcmp(ending, "signs") == 0) {
        s->threshold = room(count * sizeof(int32_t));
    } else {
        s->alpha = floats(count);
        s->bias = floats(count);
    }
    if (strcmp(ending, "shortcut") == 0) {
        s->has_residual = s->has_signs = 1;
        s->activation = BI_ACTIVATION_RPRELU;
        s->slope = floats(count);
        s->shift_in = floats(count);
        s->shift_out = floats(count);
        s->sign_threshold = floats(count);
    }
    s->flip = room(count);
}

int main(int argc, char **argv)
{
    if (argc != 9)
        return 2;
    int32_t map = atoi(argv[4]), kernel = atoi(argv[5]), stride = atoi(argv[6]);
    int32_t side = (map + 2 * (kernel / 2) - kernel) / stride + 1;
    bi_step s = {.rows = side, .in_h = map, .in_w = map, .out_h = side, .out_w = side, .groups = 1};
    s.in_c = atoi(argv[2]);
    s.out_c = atoi(argv[3]);
    s.kernel_h = s.kernel_w = kernel;
    s.stride_h = s.stride_w = stride;
    s.dilation_h = s.dilation_w = 1;
    s.pad_top = s.pad_left = kernel / 2;
    finish(&s, argv[7]);
    puts(bi_kernel_method(bi_kernel_find("bconv2d", NULL, "neon", &s)));
    s.kernel = bi_kernel_next("bconv2d", argv[1], "neon", -1);
    size_t outputs = (size_t)(side * side), numbers = outputs * (size_t)s.out_c;
    uint64_t *weight = signs((size_t)(s.out_c * kernel * kernel), s.in_c);
    void *packed = room((size_t)bi_weight_bytes(&s));
    bi_pack_weight(&s, weight, packed);
    s.weight = packed;
    s.source = -1;
    s.target = -2;
    s.signs = -3;
    s.residual = -4;
    void *externals[] = {signs((size_t)(map * map), s.in_c), room(numbers * 4 + 8),
                         room(outputs * 8), floats(numbers)};
    const int64_t strides[4] = {0};
    int64_t arena_bytes = (bi_scratch_bytes(&s) + 63) / 64 * 64;
    bi_plan plan = {.steps = &s, .n_steps = 1, .arena_bytes = arena_bytes, .stride_bytes = strides};
    bi_execute(&plan, room((size_t)arena_bytes), externals, atoi(argv[8]), NULL, NULL);
    return 0;
}
