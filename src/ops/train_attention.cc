#include "ops/train_attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/train_products.h"

namespace bakestone::ops {
namespace {

// A unit of work packs its keys once for this many rows; packing is then some 5 % of the products.
constexpr int64_t kBlockRows = 192;
// Rows of scores at a time: whole tiles of every table, few enough that scores of a document of
// 1,024 stay in L2.
constexpr int64_t kRows = 96;

int64_t RoundUp(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// One product of a tile: [rows, k] rows times panels, columns [0, cols).
struct Product {
  const uint16_t* x;
  int64_t x_stride;
  const uint16_t* panels;
  int64_t panel_stride, k;
  int64_t rows, cols;
  void* out;
  int64_t out_stride;
  TrainStore store;
};

void Multiply(const TrainKernels& kernels, const Product& p) {
  TrainGemmArgs args{};
  args.segments[0] = {p.x, p.x_stride, p.panels, p.panel_stride, p.k};
  args.num_segments = 1;
  args.store = p.store;
  args.rows = p.rows;
  args.cols = p.cols;
  args.out = p.out;
  args.out_stride = p.out_stride;
  kernels.gemm(args, 0, p.rows, 0, PanelsOf(p.cols));
}

// Rows [n, head_dim] as lanes (for products over channels) and as pairs (for products over rows).
void PackLanes(const TrainKernels& kernels, const uint16_t* x, int64_t stride, int64_t n,
               int64_t head_dim, uint16_t* out) {
  kernels.pack_lanes(x, stride, n, head_dim, head_dim, out, head_dim * kTrainLanes, 0, PanelsOf(n));
}
void PackPairs(const TrainKernels& kernels, const uint16_t* x, int64_t stride, int64_t n,
               int64_t head_dim, uint16_t* out) {
  const int64_t padded = RoundUp(n, kTrainLanes);
  kernels.pack_pairs(x, stride, n, head_dim, padded, out, padded * kTrainLanes, 0,
                     PanelsOf(head_dim));
}

float ScaleOf(const TrainAttentionShape& shape) {
  return shape.scale > 0 ? shape.scale : 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

// Takes what a window hides from a tile of scores, columns [0, cols): a score that no softmax sees.
// `first` is the first column that the tile's first row does not hide; it moves on by one a row.
constexpr float kHidden = -1e30f;
struct ScoreTile {
  float* s;
  int64_t stride, rows, cols, first;
};
void HideBefore(const ScoreTile& tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    const int64_t end = std::min(tile.first + i, tile.cols);
    if (end > 0) std::fill_n(tile.s + i * tile.stride, end, kHidden);
  }
}
// The same of the columns from `first` on.
void HideFrom(const ScoreTile& tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    const int64_t begin = std::max<int64_t>(tile.first + i, 0);
    if (begin < tile.cols) {
      std::fill_n(tile.s + i * tile.stride + begin, tile.cols - begin, kHidden);
    }
  }
}

}  // namespace

TrainAttention::TrainAttention(const TrainKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), scratch_(static_cast<size_t>(pool.num_threads())) {}

int64_t TrainAttention::bytes() const noexcept {
  int64_t total = delta_.bytes();
  for (const Scratch& scratch : scratch_) {
    for (const auto& panels : scratch.panels) total += panels.bytes();
    total +=
        scratch.scores.bytes() + scratch.d_scores.bytes() + scratch.p.bytes() + scratch.ds.bytes();
  }
  return total;
}

void TrainAttention::Plan(const TrainAttentionShape& shape) {
  BAKESTONE_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 &&
                  shape.head_dim % 2 == 0 && !shape.document_begins.empty());
  blocks_.clear();
  int64_t longest = 0;
  for (size_t i = 0; i < shape.document_begins.size(); ++i) {
    const int64_t begin = shape.document_begins[i];
    const int64_t end =
        i + 1 < shape.document_begins.size() ? shape.document_begins[i + 1] : shape.rows;
    longest = std::max(longest, end - begin);
    for (int64_t row = begin; row < end; row += kBlockRows) {
      blocks_.push_back({begin, end, row, std::min(row + kBlockRows, end)});
    }
  }
  longest = RoundUp(longest, kTrainLanes);
  if (longest > longest_ || shape.head_dim > head_dim_) {
    longest_ = std::max(longest, longest_);
    head_dim_ = std::max(shape.head_dim, head_dim_);
    const int64_t panel = longest_ * RoundUp(head_dim_, kTrainLanes);
    for (Scratch& scratch : scratch_) {
      for (auto& panels : scratch.panels) panels = Buffer<uint16_t>(panel);
      scratch.scores = Buffer<float>(kRows * longest_);
      scratch.d_scores = Buffer<float>(kRows * longest_);
      scratch.p = Buffer<uint16_t>(kRows * longest_, Fill::kZero);
      scratch.ds = Buffer<uint16_t>(kRows * longest_, Fill::kZero);
    }
  }
}

void TrainAttention::ForwardBlock(const TrainAttentionShape& shape, const Block& block,
                                  int64_t head, const uint16_t* q, const uint16_t* k,
                                  const uint16_t* v, uint16_t* out, float* log_sum,
                                  Scratch& scratch) const {
  const int64_t dim = shape.head_dim, q_stride = shape.heads * dim;
  const int64_t kv_stride = shape.kv_heads * dim;
  const int64_t keys = block.end - block.document_begin;
  const int64_t kv_at =
      block.document_begin * kv_stride + head / (shape.heads / shape.kv_heads) * dim;
  uint16_t *key_lanes = scratch.panels[0].data(), *value_pairs = scratch.panels[1].data();
  PackLanes(kernels_, k + kv_at, kv_stride, keys, dim, key_lanes);
  PackPairs(kernels_, v + kv_at, kv_stride, keys, dim, value_pairs);
  for (int64_t row = block.begin; row < block.end; row += kRows) {
    const int64_t rows = std::min(kRows, block.end - row);
    const int64_t seen = row + rows - block.document_begin;
    const int64_t padded = RoundUp(seen, kTrainLanes);
    Multiply(kernels_, {q + row * q_stride + head * dim, q_stride, key_lanes, dim * kTrainLanes,
                        dim, rows, seen, scratch.scores.data(), padded, TrainStore::kF32});
    if (shape.window > 0) {
      HideBefore({scratch.scores.data(), padded, rows, seen,
                  row - block.document_begin + 1 - shape.window});
    }
    kernels_.softmax({.s = scratch.scores.data(),
                      .s_stride = padded,
                      .rows = rows,
                      .first_visible = row - block.document_begin + 1,
                      .cols = seen,
                      .padded_cols = padded,
                      .scale = ScaleOf(shape),
                      .p = scratch.p.data(),
                      .p_stride = padded,
                      .log_sum = log_sum + head * shape.rows + row});
    Multiply(kernels_,
             {scratch.p.data(), padded, value_pairs, RoundUp(keys, kTrainLanes) * kTrainLanes,
              padded, rows, dim, out + row * q_stride + head * dim, q_stride, TrainStore::kBF16});
  }
}

void TrainAttention::Forward(const TrainAttentionShape& shape, const uint16_t* q, const uint16_t* k,
                             const uint16_t* v, uint16_t* out, float* log_sum) {
  Plan(shape);
  const auto units = static_cast<int64_t>(blocks_.size()) * shape.heads;
  pool_.ParallelFor(units, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t unit = begin; unit < end; ++unit) {
      ForwardBlock(shape, blocks_[static_cast<size_t>(unit / shape.heads)], unit % shape.heads, q,
                   k, v, out, log_sum, scratch_[static_cast<size_t>(thread)]);
    }
  });
}

void TrainAttention::QueryBlock(const TrainAttentionShape& shape, const Block& block, int64_t head,
                                const uint16_t* q, const uint16_t* k, const uint16_t* v,
                                const uint16_t* d_out, const float* log_sum,
                                const Gradients& gradients, Scratch& scratch) const {
  const int64_t dim = shape.head_dim, q_stride = shape.heads * dim;
  const int64_t kv_stride = shape.kv_heads * dim;
  const int64_t keys = block.end - block.document_begin;
  const int64_t kv_at =
      block.document_begin * kv_stride + head / (shape.heads / shape.kv_heads) * dim;
  uint16_t *key_lanes = scratch.panels[0].data(), *value_lanes = scratch.panels[1].data();
  uint16_t* key_pairs = scratch.panels[2].data();
  PackLanes(kernels_, k + kv_at, kv_stride, keys, dim, key_lanes);
  PackLanes(kernels_, v + kv_at, kv_stride, keys, dim, value_lanes);
  PackPairs(kernels_, k + kv_at, kv_stride, keys, dim, key_pairs);
  for (int64_t row = block.begin; row < block.end; row += kRows) {
    const int64_t rows = std::min(kRows, block.end - row);
    const int64_t seen = row + rows - block.document_begin;
    const int64_t padded = RoundUp(seen, kTrainLanes), at = row * q_stride + head * dim;
    Multiply(kernels_, {q + at, q_stride, key_lanes, dim * kTrainLanes, dim, rows, seen,
                        scratch.scores.data(), padded, TrainStore::kF32});
    Multiply(kernels_, {d_out + at, q_stride, value_lanes, dim * kTrainLanes, dim, rows, seen,
                        scratch.d_scores.data(), padded, TrainStore::kF32});
    if (shape.window > 0) {
      HideBefore({scratch.scores.data(), padded, rows, seen,
                  row - block.document_begin + 1 - shape.window});
    }
    kernels_.softmax_backward({.s = scratch.scores.data(),
                               .dp = scratch.d_scores.data(),
                               .stride = padded,
                               .rows = rows,
                               .first_visible = row - block.document_begin + 1,
                               .cols = seen,
                               .padded_cols = padded,
                               .scale = ScaleOf(shape),
                               .log_sum = log_sum + head * shape.rows + row,
                               .delta = delta_.data() + head * shape.rows + row,
                               .by_column = false,
                               .p = nullptr,
                               .ds = scratch.ds.data(),
                               .out_stride = padded});
    Multiply(kernels_,
             {scratch.ds.data(), padded, key_pairs, RoundUp(keys, kTrainLanes) * kTrainLanes,
              padded, rows, dim, gradients.q + row * gradients.stride + head * dim,
              gradients.stride, TrainStore::kF32});
  }
}

void TrainAttention::KeyBlock(const TrainAttentionShape& shape, const Block& block, int64_t kv_head,
                              const uint16_t* q, const uint16_t* k, const uint16_t* v,
                              const uint16_t* d_out, const float* log_sum,
                              const Gradients& gradients, Scratch& scratch) const {
  const int64_t dim = shape.head_dim, q_stride = shape.heads * dim;
  const int64_t kv_stride = shape.kv_heads * dim, group = shape.heads / shape.kv_heads;
  const int64_t queries = block.document_end - block.begin;  // keys are seen from their own row on
  const int64_t pair_stride = RoundUp(queries, kTrainLanes) * kTrainLanes;
  uint16_t *q_lanes = scratch.panels[0].data(), *d_lanes = scratch.panels[1].data();
  uint16_t *q_pairs = scratch.panels[2].data(), *d_pairs = scratch.panels[3].data();
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const int64_t q_at = block.begin * q_stride + head * dim;
    PackLanes(kernels_, q + q_at, q_stride, queries, dim, q_lanes);
    PackLanes(kernels_, d_out + q_at, q_stride, queries, dim, d_lanes);
    PackPairs(kernels_, q + q_at, q_stride, queries, dim, q_pairs);
    PackPairs(kernels_, d_out + q_at, q_stride, queries, dim, d_pairs);
    const TrainStore store = head == kv_head * group ? TrainStore::kF32 : TrainStore::kAddF32;
    for (int64_t row = block.begin; row < block.end; row += kRows) {
      const int64_t rows = std::min(kRows, block.end - row);
      const int64_t skipped = (row - block.begin) / kTrainLanes * kTrainLanes;  // whole panels
      const int64_t seen = queries - skipped, padded = RoundUp(seen, kTrainLanes);
      const int64_t kv_at = row * kv_stride + kv_head * dim;
      const int64_t first_query = head * shape.rows + block.begin + skipped;
      Multiply(kernels_, {k + kv_at, kv_stride, q_lanes + skipped * dim, dim * kTrainLanes, dim,
                          rows, seen, scratch.scores.data(), padded, TrainStore::kF32});
      Multiply(kernels_, {v + kv_at, kv_stride, d_lanes + skipped * dim, dim * kTrainLanes, dim,
                          rows, seen, scratch.d_scores.data(), padded, TrainStore::kF32});
      if (shape.window > 0) {
        HideFrom({scratch.scores.data(), padded, rows, seen,
                  row + shape.window - block.begin - skipped});
      }
      kernels_.softmax_backward({.s = scratch.scores.data(),
                                 .dp = scratch.d_scores.data(),
                                 .stride = padded,
                                 .rows = rows,
                                 .first_visible = skipped - (row - block.begin),
                                 .cols = seen,
                                 .padded_cols = padded,
                                 .scale = ScaleOf(shape),
                                 .log_sum = log_sum + first_query,
                                 .delta = delta_.data() + first_query,
                                 .by_column = true,
                                 .p = scratch.p.data(),
                                 .ds = scratch.ds.data(),
                                 .out_stride = padded});
      const int64_t to = row * gradients.stride + kv_head * dim;
      Multiply(kernels_, {scratch.ds.data(), padded, q_pairs + skipped * kTrainLanes, pair_stride,
                          padded, rows, dim, gradients.k + to, gradients.stride, store});
      Multiply(kernels_, {scratch.p.data(), padded, d_pairs + skipped * kTrainLanes, pair_stride,
                          padded, rows, dim, gradients.v + to, gradients.stride, store});
    }
  }
}

void TrainAttention::Backward(const TrainAttentionShape& shape, const uint16_t* q,
                              const uint16_t* k, const uint16_t* v, const uint16_t* out,
                              const float* log_sum, const uint16_t* d_out,
                              const Gradients& gradients) {
  Plan(shape);
  if (delta_.size() < shape.heads * shape.rows) delta_ = Buffer<float>(shape.heads * shape.rows);
  const int64_t width = shape.heads * shape.head_dim;
  pool_.ParallelFor(shape.rows, 32, [&](int64_t begin, int64_t end, int) {
    kernels_.row_dot({.a = out + begin * width,
                      .b = d_out + begin * width,
                      .rows = end - begin,
                      .heads = shape.heads,
                      .head_dim = shape.head_dim,
                      .delta = delta_.data() + begin,
                      .delta_stride = shape.rows});
  });
  const auto blocks = static_cast<int64_t>(blocks_.size());
  const int64_t query_units = blocks * shape.heads;
  const int64_t units = query_units + blocks * shape.kv_heads;
  pool_.ParallelFor(units, 1, [&](int64_t begin, int64_t end, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    for (int64_t unit = begin; unit < end; ++unit) {
      // The larger units, by key, come first: they balance better.
      const int64_t by_query = unit - blocks * shape.kv_heads;
      if (by_query < 0) {
        KeyBlock(shape, blocks_[static_cast<size_t>(unit / shape.kv_heads)], unit % shape.kv_heads,
                 q, k, v, d_out, log_sum, gradients, scratch);
      } else {
        QueryBlock(shape, blocks_[static_cast<size_t>(by_query / shape.heads)],
                   by_query % shape.heads, q, k, v, d_out, log_sum, gradients, scratch);
      }
    }
  });
}

}  // namespace bakestone::ops
