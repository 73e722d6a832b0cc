/* isa.h -- the only file that names CPU features: what the compiler may emit (TARGET) and what the
 * CPU must have (RUNS) stand next to each other and list the same features.
 *
 * BI_ISAS lists the instruction sets from the poorest to the richest.  No global -march: a kernel
 * file puts BI_TARGET_<isa> before its functions.
 */
#ifndef BITINFER_ISA_H
#define BITINFER_ISA_H

#if defined(__x86_64__)
#define BI_ISAS(X) X(portable) X(popcnt) X(avx2) X(avx512bw) X(avx512vbmi)

#define BI_TARGET_portable
#define BI_RUNS_portable() 1

#define BI_TARGET_popcnt __attribute__((target("popcnt")))
#define BI_RUNS_popcnt() __builtin_cpu_supports("popcnt")

#define BI_TARGET_avx2 __attribute__((target("popcnt,avx2,fma")))
#define BI_RUNS_avx2()                                                    \
    (__builtin_cpu_supports("popcnt") && __builtin_cpu_supports("avx2") && \
     __builtin_cpu_supports("fma"))

#define BI_TARGET_avx512bw                                                                     \
    __attribute__((target("popcnt,bmi2,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")))
#define BI_RUNS_avx512bw()                                                              \
    (BI_RUNS_avx2() && __builtin_cpu_supports("bmi2") &&                                \
     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&         \
     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))

#define BI_TARGET_avx512vbmi                                                                   \
    __attribute__((target("popcnt,bmi2,avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,"           \
                          "avx512vbmi,avx512bitalg,avx512vpopcntdq,avx512vnni")))
#define BI_RUNS_avx512vbmi()                                                            \
    (BI_RUNS_avx512bw() && __builtin_cpu_supports("avx512vbmi") &&                      \
     __builtin_cpu_supports("avx512bitalg") &&                                          \
     __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni"))

#elif defined(__aarch64__)
#define BI_ISAS(X) X(portable) X(neon)

#define BI_TARGET_portable
#define BI_RUNS_portable() 1

/* Part of every 64-bit Arm CPU that runs Linux, and of what its compilers emit by default. */
#define BI_TARGET_neon
#define BI_RUNS_neon() 1

#else
#define BI_ISAS(X) X(portable)

#define BI_TARGET_portable
#define BI_RUNS_portable() 1
#endif

enum {
#define BI_ISA_INDEX(isa) BI_ISA_##isa,
    BI_ISAS(BI_ISA_INDEX)
#undef BI_ISA_INDEX
        BI_ISA_COUNT
};

#endif
