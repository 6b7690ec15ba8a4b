/* Kernels of helmol.graph.pairs and helmol.model.backbone.layer_kernels in C, for both precisions. Built on
 * demand, see build.py; the order of arguments stands in call.py. */
#include <math.h>
#define REAL float
#define NAME(x) x##_f32
#define root_f32 sqrtf
#include "kernels.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(x) x##_f64
#define root_f64 sqrt
#include "kernels.h"
