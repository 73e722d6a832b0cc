/* dispatch.c -- the kernel list of this build, and which of its kernels runs a step. */
#include <string.h>

#include "bitinfer.h"
#include "kernels/isa.h"
#include "kernels/kernel.h"
#include "kernels/table.h"

#define BI_KERNEL(operation, method, isa)         \
    extern const bi_kernel bi_##operation##_##method##_##isa;
#include "kernels/kernels.inc"
#undef BI_KERNEL

static const char *const isa_names[] = {
#define BI_ISA_NAME(isa) #isa,
    BI_ISAS(BI_ISA_NAME)
#undef BI_ISA_NAME
};

typedef struct {
    const char *operation, *method;
    int32_t isa;
    const bi_kernel *kernel;
} entry;

static const entry entries[] = {
#define BI_KERNEL(operation, method, isa) \
    {#operation, #method, BI_ISA_##isa, &bi_##operation##_##method##_##isa},
#include "kernels/kernels.inc"
#undef BI_KERNEL
};

#define ENTRY_COUNT ((int32_t)(sizeof entries / sizeof entries[0]))

const bi_kernel *bi_kernel_at(int32_t kernel) { return entries[kernel].kernel; }

int32_t bi_kernel_count(void) { return ENTRY_COUNT; }

const char *bi_kernel_operation(int32_t kernel) { return entries[kernel].operation; }

const char *bi_kernel_method(int32_t kernel) { return entries[kernel].method; }

const char *bi_kernel_isa(int32_t kernel) { return isa_names[entries[kernel].isa]; }

int32_t bi_kernel_block(int32_t kernel) { return entries[kernel].kernel->block; }

int32_t bi_kernel_runs_here(int32_t kernel) { return bi_isa_runs_here(entries[kernel].isa); }

const char *bi_isa_name(int32_t index)
{
    return index >= 0 && index < BI_ISA_COUNT ? isa_names[index] : NULL;
}

int32_t bi_isa_runs_here(int32_t index)
{
    switch (index) {
#define BI_ISA_RUNS(isa) case BI_ISA_##isa: return BI_RUNS_##isa() != 0;
        BI_ISAS(BI_ISA_RUNS)
#undef BI_ISA_RUNS
    default: return 0;
    }
}

/* The index of an instruction set; that of the richest for NULL, -1 for an unknown name. */
static int32_t isa_index(const char *name)
{
    if (name == NULL)
        return BI_ISA_COUNT - 1;
    for (int32_t i = 0; i < BI_ISA_COUNT; i++)
        if (strcmp(isa_names[i], name) == 0)
            return i;
    return -1;
}

/* Whether a kernel may run at all, with instruction sets up to number `cap`. */
static int may_run(const entry *e, int32_t cap)
{
    int32_t better = e->kernel->not_with;
    int has_better = better > 0 && better <= cap && bi_isa_runs_here(better);
    return e->isa <= cap && bi_isa_runs_here(e->isa) && !has_better;
}

/* What is asked for; a method or an instruction set of NULL is any. */
typedef struct {
    const char *operation, *method;
    int32_t cap;
} wanted;

static int is_wanted(const wanted *w, const entry *e)
{
    return strcmp(e->operation, w->operation) == 0 &&
           (w->method == NULL || strcmp(e->method, w->method) == 0) && may_run(e, w->cap);
}

/* Whether one before it takes whatever it would. */
static int is_behind(const wanted *w, const entry *e)
{
    for (const entry *before = entries; before < e; before++)
        if ((before->kernel->takes == NULL || before->kernel->takes == e->kernel->takes) &&
            before->kernel->leaves_gaps >= e->kernel->leaves_gaps && is_wanted(w, before))
            return 1;
    return 0;
}

int32_t bi_kernel_next(const char *operation, const char *method, const char *isa, int32_t after)
{
    wanted w = {operation, method, isa_index(isa)};
    for (int32_t i = after + 1; i < ENTRY_COUNT; i++)
        if (is_wanted(&w, &entries[i]) && !is_behind(&w, &entries[i]))
            return i;
    return -1;
}

int32_t bi_kernel_find(const char *operation, const char *method, const char *isa,
                       const bi_step *step)
{
    int32_t i = bi_kernel_next(operation, method, isa, -1);
    while (i >= 0 && !bi_kernel_takes(entries[i].kernel, step))
        i = bi_kernel_next(operation, method, isa, i);
    return i;
}

int32_t bi_kernel_on(const char *operation, int32_t isa, const bi_step *step)
{
    for (int32_t i = 0; i < ENTRY_COUNT; i++) {
        const bi_kernel *kernel = entries[i].kernel;
        int is_passed_over = kernel->not_with > 0 && kernel->not_with <= isa;
        if (strcmp(entries[i].operation, operation) == 0 && entries[i].isa <= isa &&
            !is_passed_over && bi_kernel_takes(kernel, step))
            return i;
    }
    return -1;
}

size_t bi_weight_bytes(const bi_step *step)
{
    const bi_kernel *kernel = bi_kernel_at(step->kernel);
    return kernel->weight_bytes != NULL ? kernel->weight_bytes(step) : 0;
}

void bi_pack_weight(const bi_step *step, const void *canonical, void *packed)
{
    bi_kernel_at(step->kernel)->pack_weight(step, canonical, packed);
}

size_t bi_scratch_bytes(const bi_step *step)
{
    const bi_kernel *kernel = bi_kernel_at(step->kernel);
    return kernel->scratch_bytes != NULL ? kernel->scratch_bytes(step) : 0;
}

const char *bi_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}
