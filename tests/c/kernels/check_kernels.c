/* check_kernels.c -- every kernel in the list against plain loops; without Python.
 *
 *   gcc -std=c11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover -Wall -Wextra -Werror \
 *       -ffp-contract=off -Icsrc $(find csrc tests/c/kernels -name "*.c") -lm -o /tmp/check_kernels &&
 *       /tmp/check_kernels
 *
 * Signs are kept as chars of -1 and +1; bits are set one by one.  Buffers are of the exact size, by
 * turns on the heap, where AddressSanitizer watches, and right before or right after an
 * inaccessible page, which sees assembly too.  Outputs hold junk before each run.  Rows are
 * computed in parts, the last first, and a part may change no other row.
 *
 * `check_kernels 100000` draws that many layers for every binary kernel; the default is 1500.
 * `check_kernels 1500 bconv2d words avx2` checks the one kernel of that name; nothing, if this CPU lacks it.
 *
 * Prints a line for each kernel; the last line is "N passed, N failed".
 */
#include "check.h"

/* Two steps over an arena that ends at an inaccessible page, for three samples in one call. */
static void check_execute(void)
{
    subject pack_kernel = {bi_kernel_next("pack_signs", NULL, NULL, -1), "pack_signs", 0};
    subject dense_kernel = {bi_kernel_next("bdense", NULL, NULL, -1), "bi_execute", 0};
    const int32_t length = 130, outputs = 3, samples = 3;
    for (current_place = ON_HEAP; current_place < PLACES; current_place++) {
        bi_step steps[2] = {plain_step(&pack_kernel, 1, 1, length),
                            plain_step(&dense_kernel, 1, 1, length)};
        buffer x = new_floats((size_t)(length * samples)), arena = new_buffer(64, 64);
        buffer y = new_buffer((size_t)(outputs * samples) * sizeof(float), sizeof(float));
        signed char *weight = new_signs((size_t)(length * outputs), RANDOM);
        buffer canonical = pack(weight, (size_t)outputs, length);
        steps[0].source = -1;
        steps[0].target = steps[1].source = 0;
        steps[1].target = -2;
        steps[1].rows = 1;
        steps[1].out_c = outputs;
        buffer packed = bind_weight(&steps[1], canonical.data);
        void *externals[] = {x.data, y.data};
        int64_t strides[] = {length * 4, outputs * 4};
        bi_plan plan = {.steps = steps, .n_steps = 2, .arena_bytes = 64, .stride_bytes = strides};
        bi_execute(&plan, arena.data, externals, samples, NULL, NULL);
        int right = 1;
        for (int32_t n = 0; n < samples; n++)
            for (int32_t o = 0; o < outputs; o++) {
                int32_t dot = 0;
                for (int32_t i = 0; i < length; i++)
                    dot += ((const float *)x.data)[n * length + i] < 0 ? -weight[o * length + i]
                                                                       : weight[o * length + i];
                right &= ((const float *)y.data)[n * outputs + o] == (float)dot;
            }
        count_case(&dense_kernel, &steps[1], right ? NULL : "three samples of two steps");
        free(weight);
        buffer all[] = {x, arena, y, canonical, packed};
        for (size_t i = 0; i < COUNT(all); i++)
            free_buffer(all[i]);
    }
    printf("bi_execute: %ld cases\n", dense_kernel.cases);
}

/* A convolution and the pool behind it, of which so many rows are done at a time (0: all). */
static buffer run_bands(const bi_step *conv, const bi_step *pool, const void *x, int32_t band)
{
    int32_t rows = band > 0 ? (band - 1) * pool->stride_h + pool->kernel_h : conv->out_h;
    buffer map = new_floats(map_size(rows, conv->out_w, conv->out_c));
    buffer y = new_floats(map_size(pool->out_h, pool->out_w, pool->out_c));
    buffer scratch = new_buffer(bi_scratch_bytes(conv), 64);
    bi_step steps[] = {*conv, *pool};
    steps[0].band = band;
    steps[0].source = -1;
    steps[0].target = steps[1].source = 0;
    steps[1].target = -2;
    steps[0].scratch = -3;
    void *externals[] = {(void *)(uintptr_t)x, y.data, scratch.data};
    int64_t strides[COUNT(externals)] = {0};
    bi_plan plan = {.steps = steps, .n_steps = 2, .stride_bytes = strides, .batch_from = 2};
    bi_execute(&plan, map.data, externals, 1, NULL, NULL);
    free_buffer(map);
    free_buffer(scratch);
    return y;
}

/* A pool of floats, by the first kernel that takes it. */
static bi_step taken_pool(const char *operation)
{
    subject k = {-1, operation, 0};
    bi_step s = random_pool(&k, random_int(1, 20));
    do
        s.kernel = bi_kernel_next(operation, NULL, NULL, s.kernel);
    while (!bi_kernel_runs_here(s.kernel) || !is_taken(&s));
    return s;
}

/* Every number of rows at a time gives what all at once give. */
static void check_bands(subject *conv)
{
    static const window same_size = {3, 3, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int32_t i = 0; i < 300; i++) {
        current_place = (place)(i % PLACES);
        bi_step pool = taken_pool(i / PLACES % 2 ? "max_pool2d" : "avg_pool2d");
        int32_t read = (pool.out_h - 1) * pool.stride_h - pool.pad_top + pool.kernel_h;
        if (pool.stride_h > pool.kernel_h || read < pool.in_h)
            continue;
        bi_step s = windowed(conv, pool.in_h, pool.in_w, random_int(1, 8), &same_size);
        s.out_c = pool.in_c;
        if (!is_taken(&s))
            continue;
        buffer x = new_floats(map_size(s.in_h, s.in_w, s.in_c));
        buffer canonical = new_floats(map_size(s.kernel_h, s.kernel_w, s.in_c * s.out_c));
        buffer packed = bind_weight(&s, canonical.data);
        buffer whole = run_bands(&s, &pool, x.data, 0);
        for (int32_t band = 1; band < pool.out_h; band++) {
            buffer y = run_bands(&s, &pool, x.data, band);
            size_t bytes = map_size(pool.out_h, pool.out_w, pool.out_c) * sizeof(float);
            int same = memcmp(y.data, whole.data, bytes) == 0;
            count_case(conv, &s, same ? NULL : "rows of a pool at a time");
            free_buffer(y);
        }
        buffer all[] = {x, canonical, packed, whole};
        for (size_t b = 0; b < COUNT(all); b++)
            free_buffer(all[b]);
    }
}

static int has(int32_t kernel, const char *isa) { return strcmp(bi_kernel_isa(kernel), isa) == 0; }

static void check_list(void)
{
    subject list = {0, "the kernel list", 0};
    bi_step none = {0};
    for (int32_t i = 0; i < bi_kernel_count(); i++) {
        const char *operation = bi_kernel_operation(i), *isa = bi_kernel_isa(i);
        int32_t k = bi_kernel_next(operation, bi_kernel_method(i), isa, -1);
        int right = bi_kernel_runs_here(i) ? k == i : k != i;
        count_case(&list, &none, right ? NULL : "a kernel is not found under its own name");
        k = bi_kernel_next(operation, NULL, "portable", -1);
        right = k >= 0 && has(k, "portable");
        count_case(&list, &none, right ? NULL : "an operation has no portable kernel");
        count_case(&list, &none, bi_kernel_block(i) > 0 ? NULL : "a kernel has no block");
    }
    int right = bi_kernel_find("no such operation", NULL, NULL, &none) == -1;
    count_case(&list, &none, right ? NULL : "unknown operation");
    right = bi_kernel_find("bdense", "no such method", NULL, &none) == -1;
    count_case(&list, &none, right ? NULL : "unknown method");
    right = bi_kernel_find("bdense", NULL, "no such isa", &none) == -1;
    count_case(&list, &none, right ? NULL : "unknown isa");
    right = bi_isa_name(-1) == NULL && bi_isa_name(1000) == NULL;
    count_case(&list, &none, right ? NULL : "isa index");
    printf("the kernel list: %ld cases\n", list.cases);
}

typedef struct {
    const char *operation;
    void (*check)(subject *);
} checker;

static const checker CHECKERS[] = {
    {"bconv2d", check_bconv2d},
    {"bdense", check_bdense},
    {"pack_signs", check_pack_signs},
    {"beta_map", check_beta_map},
    {"affine", check_affine},
    {"activate", check_activate},
    {"add", check_pairwise},
    {"multiply", check_pairwise},
    {"quantize", check_quantize},
    {"copy_channels", check_copy_channels},
    {"shuffle_channels", check_shuffle_channels},
    {"pad2d", check_pad2d},
    {"normalize", check_normalize},
    {"avg_pool2d", check_avg_pool2d},
    {"max_pool2d", check_max_pool2d},
    {"global_pool2d", check_global_pool2d},
    {"flatten", check_flatten},
    {"softmax", check_softmax},
    {"conv2d", NULL},    /* ../check_conv2d.c is about these two alone */
    {"dense", NULL},
};

static void check_kernel(int32_t kernel)
{
    subject k = {kernel, bi_kernel_operation(kernel), 0};
    const char *method = bi_kernel_method(kernel), *isa = bi_kernel_isa(kernel);
    if (!bi_kernel_runs_here(kernel)) {
        printf("SKIP %s %s %s: this CPU lacks it\n", k.name, method, isa);
        return;
    }
    random_state = 88172645463325252u;
    for (size_t i = 0; i < COUNT(CHECKERS); i++)
        if (strcmp(CHECKERS[i].operation, k.name) == 0) {
            if (CHECKERS[i].check == NULL)
                return;
            CHECKERS[i].check(&k);
            printf("%s %s %s: %ld cases\n", k.name, method, isa, k.cases);
            failed += k.cases == 0;
            return;
        }
    printf("FAILED %s: there is no check for this operation\n", k.name);
    failed++;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        random_cases = (int32_t)strtol(argv[1], NULL, 10);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("compiler: %s\n", bi_compiler());
    check_list();
    for (int32_t kernel = 0; kernel < bi_kernel_count(); kernel++)
        if (argc < 5 || (strcmp(argv[2], bi_kernel_operation(kernel)) == 0 &&
                         strcmp(argv[3], bi_kernel_method(kernel)) == 0 && has(kernel, argv[4])))
            check_kernel(kernel);
    if (argc < 5) {
        check_execute();
        subject conv = {-1, "bands", 0};
        while ((conv.kernel = bi_kernel_next("conv2d", NULL, NULL, conv.kernel)) >= 0)
            if (bi_kernel_runs_here(conv.kernel))
                check_bands(&conv);
        printf("bands: %ld cases\n", conv.cases);
        failed += conv.cases == 0;
    }
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
