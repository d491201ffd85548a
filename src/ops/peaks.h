// The machine's limits for one kernel table: multiply-adds a second of its dot products of int8 and
// of bf16 and of its float multiply-add, all threads of the pool together, on operands in L1.
// Rooflines divide by them.
#pragma once

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"

namespace bakestone::ops {

struct Peaks {
  double int8_per_second = 0;  // multiply-adds
  double float_per_second = 0;
  double bf16_per_second = 0;
};

// The best of several passes, about 0.3 s.
Peaks MeasurePeaks(const KernelTable& kernels, ThreadPool& pool);

}  // namespace bakestone::ops
