// The serving half of each table, constant-initialized in a unit of its own; dispatch.cc puts tables
// together and knows which CPU runs which.
#pragma once

#include "kernels/kernel_table.h"

namespace bakestone {

extern const ServeKernels kServeReference;
#if defined(__x86_64__)
extern const ServeKernels kServeAvx2;     // AVX2, FMA, F16C
extern const ServeKernels kServeAvxVnni;  // and AVX-VNNI
extern const ServeKernels kServeAvx512;   // F, BW, DQ, VL, VNNI
#elif defined(__aarch64__)
extern const ServeKernels kServeNeon;      // the dot product instructions
extern const ServeKernels kServeNeonI8mm;  // and the int8 matrix extension
#endif

}  // namespace bakestone
