#include "ops/train_products.h"

#include <algorithm>

#include "base/error.h"

namespace bakestone::ops {
namespace {

// A unit's panels stay in L2 (1 MiB and more on the CPUs that matter) beside the rows that stream
// by:
// a quarter of it. 96 rows are eight tiles: enough to reuse a panel that came from memory, few
// enough that units balance over threads.
constexpr int64_t kPanelElements = 128 * 1024;
constexpr int64_t kUnitRows = 8 * kTrainTileRows;
constexpr int64_t kLongInner = 4096;  // above it, a tile of x no longer fits beside the panels
constexpr int64_t kInnerBlock = 512;

void LongInner(const TrainKernels& kernels, const TrainGemmArgs& args, int64_t row_begin,
               int64_t row_end, int64_t panel_begin, int64_t panel_end) {
  TrainGemmArgs part = args;
  for (int64_t k = 0; k < args.segments[0].k; k += kInnerBlock) {
    part.segments[0].x = args.segments[0].x + k;
    part.segments[0].panels = args.segments[0].panels + k * kTrainLanes;
    part.segments[0].k = std::min(kInnerBlock, args.segments[0].k - k);
    kernels.gemm(part, row_begin, row_end, panel_begin, panel_end);
    part.store = TrainStore::kAddF32;
  }
}

}  // namespace

void TrainGemm(const TrainKernels& kernels, ThreadPool& pool, const TrainGemmArgs& args) {
  BAKESTONE_CHECK(args.num_segments >= 1 && args.num_segments <= 2 && args.rows >= 0);
  int64_t inner = 0;
  for (int32_t i = 0; i < args.num_segments; ++i) {
    BAKESTONE_CHECK(args.segments[i].k % 2 == 0 && args.segments[i].x_stride >= 0);
    inner += args.segments[i].k;
  }
  const bool in_blocks =
      args.num_segments == 1 && inner > kLongInner && args.store != TrainStore::kBF16;
  const int64_t panels = PanelsOf(args.cols);
  const int64_t fit = kPanelElements / ((in_blocks ? kInnerBlock : inner) * kTrainLanes);
  const int64_t wide = std::clamp<int64_t>(fit / 2 * 2, 2, 24);
  const int64_t row_blocks = (args.rows + kUnitRows - 1) / kUnitRows;
  const int64_t panel_blocks = (panels + wide - 1) / wide;
  pool.ParallelFor(row_blocks * panel_blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t row = unit % row_blocks * kUnitRows, panel = unit / row_blocks * wide;
      const int64_t row_end = std::min(row + kUnitRows, args.rows);
      const int64_t panel_end = std::min(panel + wide, panels);
      if (in_blocks) {
        LongInner(kernels, args, row, row_end, panel, panel_end);
      } else {
        kernels.gemm(args, row, row_end, panel, panel_end);
      }
    }
  });
}

void TrainOuter(const TrainKernels& kernels, ThreadPool& pool, const TrainOuterArgs& args) {
  constexpr int64_t kColumns = 64;  // two tiles: a cache line of z's rows is read whole
  const int64_t units = (args.cols + kColumns - 1) / kColumns;
  pool.ParallelFor(units, 1, [&](int64_t begin, int64_t end, int) {
    kernels.outer(args, begin * kColumns, std::min(end * kColumns, args.cols));
  });
}

void TransposePanels(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* in, int64_t k,
                     int64_t n, uint16_t* out) {
  BAKESTONE_CHECK(k % kTrainLanes == 0 && n % kTrainLanes == 0);
  pool.ParallelFor(k / kTrainLanes, 2, [&](int64_t begin, int64_t end, int) {
    kernels.transpose_panels(in, k * kTrainLanes, n, out, n * kTrainLanes, begin, end);
  });
}

void PackOuter(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x, int64_t rows,
               int64_t r, uint16_t* out) {
  const int64_t even = rows + rows % 2;
  pool.ParallelFor(PanelsOf(r), 1, [&](int64_t begin, int64_t end, int) {
    kernels.pack_pairs(x, r, rows, r, even, out, even * kTrainLanes, begin, end);
  });
}

}  // namespace bakestone::ops
