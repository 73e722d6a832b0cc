/* probes.c -- what the core does right now: its clock, its vector throughput, its read bandwidth.
 *
 * A process that shares the physical core halves the vector throughput and leaves the clock alone:
 * that is how contention is told from slowness.  Times are of CLOCK_MONOTONIC. */
#define _POSIX_C_SOURCE 200809L
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if defined(__aarch64__)
#define VECTOR_REGISTER "+w"
#else
#define VECTOR_REGISTER "+x"
#endif

enum { CHAINS = 3, ADDS = 64000, ROUNDS = 12000, ACCUMULATORS = 12 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Clock in Hz: dependent additions of two registers, one a cycle on every core we know (additions
 * of a constant may be free).  The best of a few chains, because an interrupt only adds time. */
double probe_clock(void)
{
    double best = 0;
    for (int chain = 0; chain < CHAINS; chain++) {
        uint64_t x = 1, y = 3;
        double start = now();
        for (int i = 0; i < ADDS; i += 16) {
#define ADD                             \
    x += y;                             \
    __asm__ volatile("" : "+r"(x), "+r"(y));
            ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD ADD
        }
        double hertz = ADDS / (now() - start);
        if (hertz > best) {
            best = hertz;
        }
    }
    return best;
}

/* Both are defined for the widest vectors that every core of the architecture has, and for AVX2. */
#define DEFINE_VECTOR_PROBES(bytes, attribute)                                                    \
    typedef uint64_t vector_##bytes __attribute__((vector_size(bytes)));                          \
                                                                                                  \
    attribute static double and_##bytes(void)                                                     \
    {                                                                                             \
        vector_##bytes a[ACCUMULATORS] = {{0}}, mask = {3};                                       \
        double start = now();                                                                     \
        for (int i = 0; i < ROUNDS; i++) {                                                        \
            AND(0) AND(1) AND(2) AND(3) AND(4) AND(5) AND(6) AND(7) AND(8) AND(9) AND(10) AND(11) \
        }                                                                                         \
        return (double)ACCUMULATORS * ROUNDS / (now() - start);                                   \
    }                                                                                             \
                                                                                                  \
    attribute static double read_##bytes(const vector_##bytes *buffer, size_t vectors)            \
    {                                                                                             \
        vector_##bytes sums[8] = {{0}};                                                           \
        double start = now();                                                                     \
        for (size_t i = 0; i + 8 <= vectors; i += 8) {                                            \
            for (int j = 0; j < 8; j++) {                                                         \
                sums[j] ^= buffer[i + j];                                                         \
            }                                                                                     \
        }                                                                                         \
        __asm__ volatile("" : : "r"(sums) : "memory");                                            \
        return (double)vectors * bytes / (now() - start);                                         \
    }
#define AND(i)    \
    a[i] &= mask; \
    __asm__ volatile("" : VECTOR_REGISTER(a[i]));

DEFINE_VECTOR_PROBES(16, )
#if defined(__x86_64__)
DEFINE_VECTOR_PROBES(32, __attribute__((target("avx2"))))
#define HAS_32 __builtin_cpu_supports("avx2")
#else
#define HAS_32 0
#define and_32 and_16
#define read_32(buffer, vectors) read_16((const vector_16 *)(buffer), (vectors) * 2)
#endif

/* Independent ANDs of vectors per second. */
double probe_vector(void)
{
    return HAS_32 ? and_32() : and_16();
}

/* Bytes per second of reading a buffer (aligned to 32) to its end; the best of `times`. */
double probe_read(const void *buffer, size_t bytes, int times)
{
    double best = 0;
    for (int t = 0; t < times; t++) {
        double rate = HAS_32 ? read_32(buffer, bytes / 32) : read_16(buffer, bytes / 16);
        best = rate > best ? rate : best;
    }
    return best;
}
