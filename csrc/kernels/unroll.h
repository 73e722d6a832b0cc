/* unroll.h -- BI_UNROLL before a loop of a few turns over an array of vectors: such an array lives
 * in registers only if every index into it is known.  Each compiler ignores the other's pragma
 * without a word. */
#ifndef BITINFER_UNROLL_H
#define BITINFER_UNROLL_H

#if defined(__clang__)
#define BI_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BI_UNROLL _Pragma("GCC unroll 8")
#endif

#endif
