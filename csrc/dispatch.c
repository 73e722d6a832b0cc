/* dispatch.c -- the kernel list of this build, and which of its kernels this CPU runs. */
#include <string.h>

#include "bitinfer.h"
#include "kernels/isa.h"
#include "kernels/kernel.h"
#include "kernels/table.h"

#define BI_KERNEL(operation, isa) extern const bi_kernel bi_##operation##_##isa;
#include "kernels/kernels.inc"
#undef BI_KERNEL

enum {
#define BI_ISA_INDEX(isa) BI_ISA_##isa,
    BI_ISAS(BI_ISA_INDEX)
#undef BI_ISA_INDEX
    BI_ISA_COUNT
};

static const char *const isa_names[] = {
#define BI_ISA_NAME(isa) #isa,
    BI_ISAS(BI_ISA_NAME)
#undef BI_ISA_NAME
};

typedef struct {
    const char *operation;
    int32_t isa;
    const bi_kernel *kernel;
} entry;

static const entry entries[] = {
#define BI_KERNEL(operation, isa) {#operation, BI_ISA_##isa, &bi_##operation##_##isa},
#include "kernels/kernels.inc"
#undef BI_KERNEL
};

#define ENTRY_COUNT ((int32_t)(sizeof entries / sizeof entries[0]))

const bi_kernel *bi_kernel_at(int32_t kernel) { return entries[kernel].kernel; }

int32_t bi_kernel_count(void) { return ENTRY_COUNT; }

const char *bi_kernel_operation(int32_t kernel) { return entries[kernel].operation; }

const char *bi_kernel_isa(int32_t kernel) { return isa_names[entries[kernel].isa]; }

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

int32_t bi_kernel_find(const char *operation, const char *isa)
{
    int32_t cap = BI_ISA_COUNT;
    if (isa != NULL) {
        for (cap = 0; cap < BI_ISA_COUNT && strcmp(isa_names[cap], isa) != 0; cap++) {
        }
        if (cap == BI_ISA_COUNT)
            return -1;
    }
    for (int32_t i = 0; i < ENTRY_COUNT; i++)
        if (strcmp(entries[i].operation, operation) == 0 && entries[i].isa <= cap &&
            bi_isa_runs_here(entries[i].isa))
            return i;
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
