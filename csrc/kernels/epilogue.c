/* epilogue.c -- the part of the epilogue that no vector kernel has room for. */
#include "epilogue.h"

void bi_sigmoid(float *y, int32_t count)
{
    const bi_step sigmoid = {.activation = BI_ACTIVATION_SIGMOID};
    for (int32_t i = 0; i < count; i++)
        y[i] = bi_activate(&sigmoid, i, y[i]);
}
