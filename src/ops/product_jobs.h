// Several matrix products as one parallel loop over their strips. Internal to ops/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "ops/context.h"
#include "ops/quantized_rows.h"
#include "ops/row_parts.h"

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

inline void ShowJobs(ProductWatcher* watcher, std::span<const ProductJob> jobs) {
  if (watcher == nullptr) return;
  for (const ProductJob& job : jobs) {
    watcher->Product(job.args.x, job.args.panel);
    if (job.args.up.data != nullptr) watcher->Product(job.args.x, job.args.up);
  }
}

// The strips of a job that units [begin, end) of all jobs are; begin >= end where they are none.
inline Range StripsOf(const ProductJob& job, Range units) {
  return {2 * std::max<int64_t>(units.begin - job.first_unit, 0),
          std::min(2 * (units.end - job.first_unit), NumStrips(job.args.panel.n))};
}

// Outputs [begin, end) of a panel; begin is a multiple of 16.
inline Panel PartOf(const Panel& panel, Range outputs) {
  Panel part = panel;
  part.data += outputs.begin / kStripRows * StripBytes(panel.type, panel.k);
  part.n = outputs.end - outputs.begin;
  return part;
}

// Calls body(rows, begin, end, thread) for units [begin, end) of `units` and the rows of a part.
template <class Body>
void ForPartsAndUnits(ThreadPool& pool, int64_t rows, int64_t units, int64_t grain,
                      const Body& body) {
  const RowParts parts = SplitRows(rows, pool.num_threads());
  pool.ParallelFor(parts.count * units, grain, [&](int64_t begin, int64_t end, int thread) {
    while (begin < end) {
      const int64_t part = begin / units, stop = std::min(end, (part + 1) * units);
      body(parts.part(part, rows), begin - part * units, stop - part * units, thread);
      begin = stop;
    }
  });
}

// Rows of a job's inputs and outputs.
inline MatMulArgs RowsOf(const MatMulArgs& args, Range rows) {
  MatMulArgs out = args;
  out.x = RowsOf(args.x, rows.begin, rows.end - rows.begin);
  if (out.y != nullptr) out.y += rows.begin * out.y_stride;
  return out;
}

}  // namespace bakestone::ops
