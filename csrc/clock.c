/* clock.c -- the clock of the core that this runs on, for reports. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "bitinfer.h"

enum { CHAINS = 5, ADDS = 64000 };

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Additions that depend on each other take a cycle each; of two registers, since some cores add
 * constants for nothing.  An interrupt only adds time, so the fastest chain is the right one. */
double bi_clock_hz(void)
{
    double best = 0;
    for (int32_t chain = 0; chain < CHAINS; chain++) {
        uint64_t x = 1, y = 3;
        double start = seconds_now();
        for (int32_t i = 0; i < ADDS; i += 8) {
#define BI_ADD x += y; __asm__ volatile("" : "+r"(x), "+r"(y));
            BI_ADD BI_ADD BI_ADD BI_ADD BI_ADD BI_ADD BI_ADD BI_ADD
#undef BI_ADD
        }
        double seconds = seconds_now() - start;
        if (seconds > 0 && ADDS / seconds > best)
            best = ADDS / seconds;
    }
    return best;
}
