#include "ops/train_products.h"

#include <algorithm>

#include "base/error.h"

namespace bakestone::ops {
namespace {

// A unit's panels stay in L2 (1 MiB and more on the CPUs that matter) while its rows stream by, and
// are used by as many rows as L2 still holds: what comes from beyond L2 is what a product waits
// for. Rows in whole tiles of AMX; tables with tiles of 12 rows redo at most 11 of a unit.
constexpr int64_t kPanelElements = 128 * 1024;
constexpr int64_t kRowElements = 384 * 1024;
constexpr int64_t kUnitRows = 32;
constexpr int64_t kLongInner = 1024;  // above it, a tile of x no longer fits L1 beside panels
constexpr int64_t kInnerBlock = 512;

int64_t Blocks(int64_t size, int64_t block) { return (size + block - 1) / block; }

// How a product is cut into units: row_blocks x panel_blocks of them, in which a thread's share
// lies together. Rows stay with a thread from product to product (another core's cache is as far
// as memory), unless the panels are so many more that each had better be read by one thread only.
struct Units {
  int64_t rows, panels;  // of a unit, at most
  int64_t row_blocks, panel_blocks;
  bool by_rows;
};

Units CutProduct(int64_t rows, int64_t cols, int64_t inner, int64_t threads) {
  const int64_t panels = PanelsOf(cols);
  const int64_t widest = std::max<int64_t>(kPanelElements / (inner * kTrainLanes) / 2 * 2, 4);
  const int64_t highest = std::max(kRowElements / inner, kUnitRows);
  Units units{};
  units.by_rows = 2 * rows * (cols + inner) >= cols * inner;
  const int64_t shares = units.by_rows ? threads : 1;
  const int64_t row_blocks = Blocks(Blocks(rows, highest), shares) * shares;
  units.rows = Blocks(Blocks(rows, row_blocks), kUnitRows) * kUnitRows;
  units.row_blocks = Blocks(rows, units.rows);
  units.panels = std::min(widest, panels);
  units.panel_blocks = Blocks(panels, units.panels);
  return units;
}

void LongInner(const TrainKernels& kernels, const TrainGemmArgs& args, int64_t row_begin,
               int64_t row_end, int64_t panel_begin, int64_t panel_end) {
  TrainGemmArgs part = args;
  part.num_segments = 1;
  for (int64_t k = 0; k < args.segments[0].k; k += kInnerBlock) {
    part.segments[0].x = args.segments[0].x + k;
    part.segments[0].panels = args.segments[0].panels + k * kTrainLanes;
    part.segments[0].k = std::min(kInnerBlock, args.segments[0].k - k);
    if (k + kInnerBlock >= args.segments[0].k) part.num_segments = args.num_segments;
    kernels.gemm(part, row_begin, row_end, panel_begin, panel_end);
    part.store = TrainStore::kAddF32;
  }
}

}  // namespace

void TrainGemm(const TrainKernels& kernels, ThreadPool& pool,
               std::span<const TrainGemmArgs> products,
               const std::function<void(const TrainUnit&)>& after) {
  const TrainGemmArgs& shape = products.front();
  int64_t inner = 0;
  bool in_blocks = true;
  for (const TrainGemmArgs& args : products) {
    BAKESTONE_CHECK(args.num_segments >= 1 && args.num_segments <= 2 && args.rows == shape.rows &&
                    args.cols == shape.cols);
    int64_t own = 0;
    for (int32_t i = 0; i < args.num_segments; ++i) {
      BAKESTONE_CHECK(args.segments[i].k % 2 == 0 && args.segments[i].x_stride >= 0);
      own += args.segments[i].k;
    }
    inner += own;
    in_blocks = in_blocks && args.segments[0].k > kLongInner && args.column_scale == nullptr &&
                args.store != TrainStore::kBF16;
  }
  const int64_t panels = PanelsOf(shape.cols);
  const Units units =
      CutProduct(shape.rows, shape.cols, in_blocks ? kInnerBlock : inner, pool.num_threads());
  pool.ParallelFor(units.row_blocks * units.panel_blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t at_row = units.by_rows ? unit / units.panel_blocks : unit % units.row_blocks;
      const int64_t at_panel = units.by_rows ? unit % units.panel_blocks : unit / units.row_blocks;
      const int64_t row = at_row * units.rows, panel = at_panel * units.panels;
      const int64_t row_end = std::min(row + units.rows, shape.rows);
      const int64_t panel_end = std::min(panel + units.panels, panels);
      for (const TrainGemmArgs& args : products) {
        if (in_blocks) {
          LongInner(kernels, args, row, row_end, panel, panel_end);
        } else {
          kernels.gemm(args, row, row_end, panel, panel_end);
        }
      }
      if (!after) continue;
      const int64_t col = panel * kTrainLanes;
      after({row, row_end - row, col, std::min(panel_end * kTrainLanes, shape.cols) - col});
    }
  });
}

void TrainGemm(const TrainKernels& kernels, ThreadPool& pool, const TrainGemmArgs& args) {
  TrainGemm(kernels, pool, {&args, 1}, nullptr);
}

void TrainOuter(const TrainKernels& kernels, ThreadPool& pool, const TrainOuterArgs& args) {
  constexpr int64_t kColumns = 64;  // a cache line of z's rows is read whole
  pool.ParallelFor(Blocks(args.cols, kColumns), 0, [&](int64_t begin, int64_t end, int) {
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
