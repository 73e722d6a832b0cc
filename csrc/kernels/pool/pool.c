/* pool.c -- what all versions of the pools share. */
#include "pool.h"

int bi_max_pool2d_signs_takes(const bi_step *s) { return (s->flags & BI_FLAG_BITS) != 0; }

int bi_max_pool2d_windows_takes(const bi_step *s) { return !bi_max_pool2d_signs_takes(s); }

int bi_max_pool2d_strip_takes(const bi_step *s)
{
    return bi_max_pool2d_windows_takes(s) && s->kernel_h == 3 && s->kernel_w == 3 &&
           (s->stride_w == 1 || s->stride_w == 2);
}
