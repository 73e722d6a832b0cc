/* conv2d_speed.c -- times the float and integer layers: multiply-accumulates a cycle, cycles, and
 * microseconds.  conv2d_speed.py compiles and runs it.
 *
 *   conv2d_speed [ISA [ROUNDS [NAME]]]    ISA: the richest instruction set, default any; NAME: part of
 *                                         the name of the layers, default all
 *
 * Every layer is run in turn, ROUNDS times over; the shortest time of each counts, in cycles of the fastest
 * clock that was measured between them (probes.c): what else the machine does only slows both.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernel.h"
#include "kernels/table.h"

double probe_clock(void);

typedef enum { FLOATS, TABLE, U8 } source_kind;

typedef struct {
    const char *name;
    int32_t size, channels, outputs, kernel, stride, pad, groups;
    int signs;    /* packed signs are the target */
    source_kind kind;
    int32_t weight_type;
} layer;

#define FIRST(name, ...)                                    \
    {name, __VA_ARGS__, FLOATS, BI_WEIGHT_F32},             \
    {name, __VA_ARGS__, TABLE, BI_WEIGHT_F32},              \
    {name, __VA_ARGS__, FLOATS, BI_WEIGHT_BITS},            \
    {name, __VA_ARGS__, U8, BI_WEIGHT_I16},                 \
    {name, __VA_ARGS__, U8, BI_WEIGHT_I8},                  \
    {name, __VA_ARGS__, U8, BI_WEIGHT_BITS}
#define DENSE(name, ...)                                    \
    {name, 1, __VA_ARGS__, 1, 1, 0, 1, 0, FLOATS, BI_WEIGHT_F32}, \
    {name, 1, __VA_ARGS__, 1, 1, 0, 1, 0, FLOATS, BI_WEIGHT_I8},  \
    {name, 1, __VA_ARGS__, 1, 1, 0, 1, 0, FLOATS, BI_WEIGHT_BITS}
#define PLAIN(name, ...) {name, __VA_ARGS__, 0, FLOATS, BI_WEIGHT_F32}

static const layer LAYERS[] = {
    FIRST("NIN conv1, to signs", 32, 3, 192, 5, 1, 2, 1, 1),
    FIRST("Bi-Real-Net conv1", 224, 3, 64, 7, 2, 3, 1, 0),
    FIRST("AlexNet conv1", 227, 3, 96, 11, 4, 0, 1, 0),
    FIRST("3x3 stem", 32, 3, 64, 3, 1, 1, 1, 0),
    FIRST("QuickNet stem", 224, 3, 16, 3, 2, 1, 1, 0),
    FIRST("LeNet-5 conv1", 28, 1, 20, 5, 1, 0, 1, 0),
    PLAIN("1x1 64 to 128, 28x28", 28, 64, 128, 1, 1, 0, 1),
    PLAIN("1x1 256 to 512, 7x7", 7, 256, 512, 1, 1, 0, 1),
    PLAIN("1x1 192 to 10, 8x8", 8, 192, 10, 1, 1, 0, 1),
    PLAIN("3x3 64 to 64, 28x28", 28, 64, 64, 3, 1, 1, 1),
    PLAIN("3x3 64 to 64, 4 groups", 28, 64, 64, 3, 1, 1, 4),
    PLAIN("MeliusNet stem, 4 groups", 112, 32, 32, 3, 1, 1, 4),
    PLAIN("MeliusNet stem, 8 groups", 112, 32, 64, 3, 1, 1, 8),
    PLAIN("depthwise 3x3 /2, 64x56x56", 56, 64, 64, 3, 2, 1, 64),
    PLAIN("depthwise 3x3, 64x28x28", 28, 64, 64, 3, 1, 1, 64),
    {"3x3 64 to 64, 28x28", 28, 64, 64, 3, 1, 1, 1, 0, FLOATS, BI_WEIGHT_BITS},
    DENSE("dense 4096 to 1000", 4096, 1000),
    DENSE("dense 512 to 1000", 512, 1000),
    DENSE("dense 800 to 10", 800, 10),
};

enum { LAYER_COUNT = sizeof LAYERS / sizeof LAYERS[0] };

/* A layer bound to its arrays. */
typedef struct {
    const layer *layer;
    bi_step step;
    bi_pointers at;
    double macs, best;    /* seconds */
    int repeats;
} bound;

static void *new_bytes(size_t size)
{
    unsigned char *data = aligned_alloc(64, (size + 127) / 64 * 64);
    if (data == NULL)
        exit(2);
    for (size_t i = 0; i < size; i++)
        data[i] = (unsigned char)(i * 37 % 101);
    return data;
}

static float *new_floats(size_t count)
{
    float *data = new_bytes(count * sizeof(float));
    for (size_t i = 0; i < count; i++)
        data[i] = (float)(i * 37 % 101) / 50 - 1;
    return data;
}

static bound bind(const layer *l, const char *isa)
{
    bound b = {.layer = l, .best = 1e300, .repeats = 1};
    int32_t out = (l->size + 2 * l->pad - l->kernel) / l->stride + 1;
    int32_t inputs = l->kernel * l->kernel * (l->channels / l->groups);
    size_t source = (size_t)l->size * (size_t)l->size * (size_t)l->channels;
    size_t target = (size_t)out * (size_t)out * (size_t)l->outputs;
    bi_step s = {
        .rows = out,
        .in_h = l->size,
        .in_w = l->size,
        .in_c = l->channels,
        .out_h = out,
        .out_w = out,
        .out_c = l->outputs,
        .kernel_h = l->kernel,
        .kernel_w = l->kernel,
        .stride_h = l->stride,
        .stride_w = l->stride,
        .pad_top = l->pad,
        .pad_left = l->pad,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = l->groups,
        .weight_type = l->weight_type,
        .flags = l->kind == FLOATS ? 0 : BI_FLAG_U8,
    };
    float *bias = new_floats((size_t)l->outputs);
    s.bias = bias;
    if (l->kind == TABLE)
        s.table = new_floats(256 * (size_t)l->channels);
    if (l->kind == U8) {
        s.offset = new_floats((size_t)l->channels);
        s.alpha = new_floats((size_t)l->outputs);
    }
    if (l->signs) {
        s.sign_threshold = bias;
        s.flip = new_bytes((size_t)l->outputs);
        memset((void *)(uintptr_t)s.flip, 0, (size_t)l->outputs);
    } else {
        s.activation = BI_ACTIVATION_RELU;
    }
    s.kernel = bi_kernel_find(l->size == 1 ? "dense" : "conv2d", NULL, isa, &s);
    if (s.kernel < 0) {
        fprintf(stderr, "no instruction set %s\n", isa);
        exit(2);
    }
    size_t canonical = (size_t)l->outputs * (size_t)(inputs + 64 * l->kernel * l->kernel) * 4;
    void *weight =
        l->weight_type == BI_WEIGHT_F32 ? (void *)new_floats(canonical / 4) : new_bytes(canonical);
    void *packed = new_bytes(bi_weight_bytes(&s));
    bi_pack_weight(&s, weight, packed);
    free(weight);
    s.weight = packed;
    b.step = s;
    b.at.scratch = new_bytes(bi_scratch_bytes(&s));
    b.at.source = l->kind == FLOATS ? (void *)new_floats(source) : new_bytes(source);
    b.at.target = new_bytes(target * sizeof(float));
    b.macs = (double)target * inputs;
    return b;
}

static double run(const bound *b)
{
    const bi_kernel *kernel = bi_kernel_at(b->step.kernel);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < b->repeats; i++) {
        if (kernel->stage != NULL)
            kernel->stage(&b->step, &b->at);
        kernel->run(&b->step, &b->at, 0, b->step.rows);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
}

int main(int argc, char **argv)
{
    static const char *const sources[] = {"float", "u8 table", "u8"};
    static const char *const weights[] = {"f32", "i16", "i8", "bits"};
    static bound layers[LAYER_COUNT];
    const char *isa = argc > 1 && strcmp(argv[1], "any") != 0 ? argv[1] : NULL;
    int rounds = argc > 2 ? atoi(argv[2]) : 15, count = 0;
    double clock = 0;
    for (int i = 0; i < LAYER_COUNT; i++) {
        if (argc > 3 && strstr(LAYERS[i].name, argv[3]) == NULL)
            continue;
        layers[count++] = bind(&LAYERS[i], isa);
    }
    for (int i = 0; i < count; i++) {
        double once = run(&layers[i]);
        layers[i].repeats = once < 2e-4 ? (int)(2e-4 / once) + 1 : 1;
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) {
            double now = probe_clock(), seconds = run(&layers[i]) / layers[i].repeats;
            if (now > clock)
                clock = now;
            if (seconds < layers[i].best)
                layers[i].best = seconds;
        }
    printf("%s, %.2f GHz\n", bi_compiler(), clock * 1e-9);
    for (int i = 0; i < count; i++) {
        const bound *b = &layers[i];
        printf("%-28s %-9s %-5s %7.2f MAC/cycle %10.0f cycles %9.1f us  %s %s\n", b->layer->name,
               sources[b->layer->kind], weights[b->layer->weight_type], b->macs / (b->best * clock),
               b->best * clock, b->best * 1e6, bi_kernel_method(b->step.kernel),
               bi_kernel_isa(b->step.kernel));
    }
    return 0;
}
