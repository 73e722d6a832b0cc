/* table.h -- the kernel list as the library itself sees it. */
#ifndef BITINFER_TABLE_H
#define BITINFER_TABLE_H

#include "kernel.h"

const bi_kernel *bi_kernel_at(int32_t kernel);

#endif
