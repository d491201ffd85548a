#include "ops/train_loss.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/train_products.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kUnitCols =
    256;  // columns of a tile: its head's panels, 0.3 MB at 576, stay in L2
constexpr int64_t kTileRows = 64;  // rows of a tile
constexpr int64_t kSlices = 8;     // of the vocabulary, each summed by one thread
// Gradients of hidden rows are added to once a unit: so many of them stay in L2 meanwhile.
constexpr int64_t kHiddenElements = 320 * 1024;
constexpr int64_t kKeptBytes = int64_t{160} << 20;
constexpr int64_t kBytes = sizeof(uint16_t);
constexpr int64_t kLeastRows = 32, kMostRows = 512;

int64_t UnitsOf(int64_t vocab) { return (vocab + kUnitCols - 1) / kUnitCols; }
int64_t TilesOf(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }
int64_t SlicesOf(int64_t vocab) { return std::min(kSlices, UnitsOf(vocab)); }

// Of the units of a row: the unit that has the largest first, and log sum exp.
struct RowSum {
  int64_t unit = 0;
  float largest = 0;
  double log_sum = 0;
};
RowSum SumOf(const std::vector<TrainLossPart>& parts, int64_t units, int64_t rows, int64_t row) {
  const auto part = [&](int64_t unit) { return parts[static_cast<size_t>(unit * rows + row)]; };
  RowSum result = {0, part(0).largest, 0};
  for (int64_t unit = 1; unit < units; ++unit) {
    if (part(unit).largest > result.largest) result = {unit, part(unit).largest, 0};
  }
  double sum = 0;
  for (int64_t unit = 0; unit < units; ++unit) {
    sum += static_cast<double>(part(unit).sum) *
           std::exp(static_cast<double>(part(unit).largest) - static_cast<double>(result.largest));
  }
  result.log_sum = static_cast<double>(result.largest) + std::log(sum);
  return result;
}

void CopyRows(const uint16_t* from, int64_t from_stride, int64_t rows, int64_t cols, uint16_t* to,
              int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(from + i * from_stride, cols, to + i * to_stride);
  }
}

template <class T>
void Grow(Buffer<T>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<T>(size, Fill::kZero);
}

template <class T>
void Grow(std::vector<T>& values, int64_t size) {
  if (static_cast<int64_t>(values.size()) < size) values.resize(static_cast<size_t>(size));
}

}  // namespace

void TransposeHead(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* panels,
                   int64_t vocab, int64_t dim, uint16_t* out) {
  for (int64_t first = 0; first < vocab; first += kUnitCols) {
    const int64_t cols = PanelsOf(std::min(kUnitCols, vocab - first)) * kTrainLanes;
    TransposePanels(kernels, pool, panels + first * dim, dim, cols, out + first * dim);
  }
}

TrainLoss::TrainLoss(const TrainKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), scratch_(static_cast<size_t>(pool.num_threads())) {}

int64_t TrainLoss::BestRows(int64_t dim, int64_t vocab) {
  const int64_t kept =
      kKeptBytes / (UnitsOf(vocab) * kUnitCols * static_cast<int64_t>(sizeof(float)));
  const int64_t rows = std::min(kHiddenElements / dim, kept) / kLeastRows * kLeastRows;
  return std::clamp(rows, kLeastRows, kMostRows);
}

int64_t TrainLoss::BytesOf(int64_t rows, int64_t dim, int64_t vocab, bool base) {
  constexpr int64_t kF32 = sizeof(float);
  const int64_t models = base ? 2 : 1, units = UnitsOf(vocab);
  return rows * (models * units * (kUnitCols * kF32 + static_cast<int64_t>(sizeof(TrainLossPart))) +
                 kSlices * dim * kF32);
}

int64_t TrainLoss::bytes() const noexcept {
  int64_t total = kept_.bytes() + kept_base_.bytes() + partial_.bytes();
  for (const Buffer<uint16_t>& d : scratch_) total += d.bytes();
  return total + static_cast<int64_t>((parts_.size() + base_parts_.size()) * sizeof(TrainLossPart));
}

void TrainLoss::Reserve(const TrainLossArgs& args) {
  const int64_t units = UnitsOf(args.vocab);
  const bool base = args.base.hidden != nullptr;
  Grow(parts_, units * args.rows);
  if (base) Grow(base_parts_, units * args.rows);
  for (std::vector<float>* values : {&target_logits_, &log_sums_, &base_log_sums_}) {
    Grow(*values, args.rows);
  }
  Grow(leads_, args.rows);
  Grow(kl_, kSlices * args.rows);
  if (args.transposed != nullptr) Grow(partial_, kSlices * args.rows * args.dim);
  Grow(kept_, units * args.rows * kUnitCols);
  if (base) Grow(kept_base_, units * args.rows * kUnitCols);
  for (Buffer<uint16_t>& d : scratch_) Grow(d, (kTileRows + kTrainTileRows) * kUnitCols);
}

TrainLoss::Next TrainLoss::NextUnit(const uint16_t* panels, const TrainLossArgs& args, int64_t unit,
                                    int64_t share, int64_t shares) {
  if (unit < 0 || (unit + 1) * kUnitCols > args.vocab) return {};
  const int64_t size = kUnitCols * args.dim, begin = size * share / shares;
  return {panels + unit * size + begin, (size * (share + 1) / shares - begin) * kBytes};
}

float* TrainLoss::Kept(Buffer<float>& kept, const TrainLossArgs& args, const Tile& tile) {
  return kept.data() + tile.first * args.rows + tile.row * kUnitCols;
}

const float* TrainLoss::MakeLogits(const TrainLossArgs& args, const TrainHeadInput& head,
                                   const Tile& tile, const Next& next, Buffer<float>& kept) {
  TrainGemmArgs product{};
  product.segments[0] = {head.hidden + tile.row * args.dim, args.dim,
                         head.panels + tile.first * args.dim, args.dim * kTrainLanes, args.dim};
  product.num_segments = 1;
  product.store = TrainStore::kF32;
  product.rows = tile.rows;
  product.cols = PanelsOf(tile.cols) * kTrainLanes;
  product.out = Kept(kept, args, tile);
  product.out_stride = kUnitCols;
  product.next = next.panels;
  product.next_bytes = next.bytes;
  kernels_.gemm(product, 0, tile.rows, 0, PanelsOf(tile.cols));
  if (args.soft_cap > 0) {
    kernels_.soft_cap(Kept(kept, args, tile), tile.rows * kUnitCols, 1 / args.soft_cap,
                      args.soft_cap);
  }
  return Kept(kept, args, tile);
}

void TrainLoss::FirstPass(const TrainLossArgs& args) {
  pool_.ParallelFor(UnitsOf(args.vocab), 0, [&](int64_t begin, int64_t end, int) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = unit * kUnitCols, cols = std::min(kUnitCols, args.vocab - first);
      for (int64_t row = 0; row < args.rows; row += kTileRows) {
        const Tile tile = {row, std::min(kTileRows, args.rows - row), first, cols};
        const auto at = static_cast<size_t>(unit * args.rows + row);
        const Next next = NextUnit(args.model.panels, args, unit + 1 < end ? unit + 1 : -1,
                                   row / kTileRows, TilesOf(args.rows));
        const float* logits = MakeLogits(args, args.model, tile, next, kept_);
        kernels_.loss_part({logits, kUnitCols, tile.rows, cols, parts_.data() + at});
        for (int64_t i = 0; i < tile.rows; ++i) {
          const int64_t target = args.targets[row + i] - first;
          if (target < 0 || target >= cols) continue;
          const float* own = logits + i * kUnitCols;
          target_logits_[static_cast<size_t>(row + i)] = own[target];
          const bool leads =
              std::none_of(own, own + target, [&](float logit) { return logit >= own[target]; });
          leads_[static_cast<size_t>(row + i)] = leads ? 1 : 0;
        }
        if (args.base.hidden == nullptr) continue;
        const float* base = MakeLogits(args, args.base, tile, {}, kept_base_);
        kernels_.loss_part({base, kUnitCols, tile.rows, cols, base_parts_.data() + at});
      }
    }
  });
}

void TrainLoss::Combine(const TrainLossArgs& args) {
  const int64_t units = UnitsOf(args.vocab);
  pool_.ParallelFor(args.rows, 0, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const auto at = static_cast<size_t>(row);
      const RowSum sum = SumOf(parts_, units, args.rows, row);
      args.nll[row] = sum.log_sum - static_cast<double>(target_logits_[at]);
      const bool right = sum.unit == args.targets[row] / kUnitCols &&
                         sum.largest == target_logits_[at] && leads_[at] != 0;
      args.correct[row] = right ? 1 : 0;
      log_sums_[at] = static_cast<float>(sum.log_sum);
      if (args.base.hidden == nullptr) continue;
      base_log_sums_[at] = static_cast<float>(SumOf(base_parts_, units, args.rows, row).log_sum);
    }
  });
}

// Units of a slice: what it adds to the gradient of rows [row_begin, row_end), and to their KL.
void TrainLoss::Slice(const TrainLossArgs& args, int64_t slice, int64_t row_begin, int64_t row_end,
                      Buffer<uint16_t>& d_scratch) {
  const int64_t units = UnitsOf(args.vocab), slices = SlicesOf(args.vocab);
  const int64_t begin = units * slice / slices, end = units * (slice + 1) / slices;
  const bool base = args.base.hidden != nullptr, gradient = args.transposed != nullptr;
  const bool keeps = gradient && args.d_logits != nullptr;
  // A product reads whole tiles of rows: the next ones may be another thread's, who writes them.
  const bool alone = row_begin == 0 && row_end == args.rows;
  double* kl = kl_.data() + slice * args.rows;
  std::fill(kl + row_begin, kl + row_end, 0.0);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t first = unit * kUnitCols, cols = std::min(kUnitCols, args.vocab - first);
    const int64_t padded = PanelsOf(cols) * kTrainLanes;
    for (int64_t row = row_begin; row < row_end; row += kTileRows) {
      const Tile tile = {row, std::min(kTileRows, row_end - row), first, cols};
      uint16_t* kept = keeps ? args.d_logits + row * args.d_stride + first : nullptr;
      uint16_t* d = keeps && alone ? kept : d_scratch.data();
      const int64_t d_stride = keeps && alone ? args.d_stride : kUnitCols;
      kernels_.loss_gradient({.logits = Kept(kept_, args, tile),
                              .base = base ? Kept(kept_base_, args, tile) : nullptr,
                              .stride = kUnitCols,
                              .rows = tile.rows,
                              .cols = cols,
                              .log_sum = log_sums_.data() + row,
                              .base_log_sum = base_log_sums_.data() + row,
                              .targets = args.targets + row,
                              .first = first,
                              .factors = gradient ? args.factors + row : log_sums_.data() + row,
                              .kl = kl + row,
                              .d = gradient ? d : nullptr,
                              .d_stride = d_stride,
                              .d_cols = padded});
      if (!gradient) continue;
      for (int64_t i = 0; i < tile.rows && args.soft_cap > 0; ++i) {
        kernels_.soft_cap_backward(Kept(kept_, args, tile) + i * kUnitCols, 1 / args.soft_cap,
                                   d + i * d_stride, cols);
      }
      if (keeps && !alone) CopyRows(d, d_stride, tile.rows, padded, kept, args.d_stride);
      TrainGemmArgs product{};
      product.segments[0] = {d, d_stride, args.transposed + first * args.dim, padded * kTrainLanes,
                             padded};
      product.num_segments = 1;
      product.store = unit == begin ? TrainStore::kF32 : TrainStore::kAddF32;
      product.rows = tile.rows;
      product.cols = product.out_stride = args.dim;
      product.out = partial_.data() + (slice * args.rows + row) * args.dim;
      const Next next = NextUnit(args.transposed, args, unit + 1 < end ? unit + 1 : -1,
                                 (row - row_begin) / kTileRows, TilesOf(row_end - row_begin));
      product.next = next.panels;
      product.next_bytes = next.bytes;
      kernels_.gemm(product, 0, tile.rows, 0, PanelsOf(args.dim));
    }
  }
}

void TrainLoss::SecondPass(const TrainLossArgs& args) {
  const int64_t slices = SlicesOf(args.vocab);
  // More threads than slices share a slice's rows.
  const int64_t most = (args.rows + kTileRows - 1) / kTileRows;
  const int64_t shares = std::clamp<int64_t>((pool_.num_threads() + slices - 1) / slices, 1, most);
  const int64_t share_rows = (most + shares - 1) / shares * kTileRows;
  pool_.ParallelFor(slices * shares, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item % shares * share_rows;
      if (row >= args.rows) continue;
      Slice(args, item / shares, row, std::min(row + share_rows, args.rows),
            scratch_[static_cast<size_t>(thread)]);
    }
  });
  pool_.ParallelFor(args.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t slice = 0; slice < slices; ++slice) {
      for (int64_t row = begin; row < end && args.base.hidden != nullptr; ++row) {
        const double kl = kl_[static_cast<size_t>(slice * args.rows + row)];
        args.kl[row] = slice == 0 ? kl : args.kl[row] + kl;
      }
      if (args.transposed == nullptr) continue;
      const float* from = partial_.data() + slice * args.rows * args.dim;
      for (int64_t i = begin * args.dim; i < end * args.dim; ++i) {
        args.d_hidden[i] = slice == 0 ? from[i] : args.d_hidden[i] + from[i];
      }
    }
  });
}

void TrainLoss::Run(const TrainLossArgs& args) {
  BAKESTONE_CHECK(args.rows > 0 && args.vocab > 0 && args.dim % kTrainLanes == 0);
  BAKESTONE_CHECK(args.transposed == nullptr ||
                  (args.factors != nullptr && args.d_hidden != nullptr));
  Reserve(args);
  FirstPass(args);
  Combine(args);
  if (args.transposed != nullptr || args.base.hidden != nullptr) SecondPass(args);
}

}  // namespace bakestone::ops
