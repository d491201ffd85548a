// Several matrix products as one parallel loop over their strips. Internal to ops/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "ops/context.h"

namespace bakestone::ops {

// One product, or the fused pair of gate and up.
struct ProductJob {
  MatMulArgs args;
  decltype(MatMulKernels::run) run;
  int64_t first_unit;  // where its units begin among those of all jobs
};

// A unit of work is a pair of strips, which kernels like to have (an odd one at the end of a panel
// apart):
// how many there are.
inline int64_t NumUnits(const Panel& panel) { return (NumStrips(panel.n) + 1) / 2; }

// Units a thread takes at a time: enough products to be worth a fetch of the shared counter, few
// enough that uneven cores balance; in prefill a weight strip stays in L2 over all rows.
inline int64_t UnitGrain(int64_t units, int64_t rows, int threads) {
  const int64_t share = (units + 4 * threads - 1) / (4 * threads);
  return std::max<int64_t>(1, std::min<int64_t>(share, rows >= 8 ? 8 : 32));
}

inline decltype(MatMulKernels::run) ProductKernel(const Context& context, const Panel& panel,
                                                  Precision precision) {
  const MatMulKernels& kernels = context.serve().matmul[static_cast<int>(panel.type)];
  return precision == Precision::kExact ? kernels.exact : kernels.run;
}

// rows: of the largest; k: the largest.
inline void RunProductJobs(Context& context, std::span<const ProductJob> jobs, int64_t units,
                           int64_t rows, int64_t k) {
  if (rows == 0) return;
  context.Reserve(MatMulScratchBytes(k));
  const int64_t grain = UnitGrain(units, rows, context.pool().num_threads());
  context.pool().ParallelFor(units, grain, [&](int64_t begin, int64_t end, int thread) {
    for (const ProductJob& job : jobs) {
      const int64_t strips = NumStrips(job.args.panel.n);
      const Range range{2 * std::max<int64_t>(begin - job.first_unit, 0),
                        std::min(2 * (end - job.first_unit), strips)};
      if (range.begin < range.end) job.run(job.args, range, context.scratch(thread));
    }
  });
}

}  // namespace bakestone::ops
