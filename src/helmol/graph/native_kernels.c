/* Kernels of helmol.graph.pairs in C, for both precisions. Built on demand, see native.py. */
#define REAL float
#define NAME(x) x##_f32
#include "native_kernels.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(x) x##_f64
#include "native_kernels.h"
