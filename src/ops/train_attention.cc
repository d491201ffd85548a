#include "ops/train_attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/train_products.h"
#include "tensor/half.h"

namespace bakestone::ops {
namespace {

// A unit of work packs its keys once for this many rows; packing is then some 5 % of the products.
constexpr int64_t kBlockRows = 192;
// Rows of scores at a time: whole tiles of every table, few enough that scores of a document of
// 1,024 stay in L2.
constexpr int64_t kRows = 96;
// Queries beside a block of keys in the backward, at most.
constexpr int64_t kQueries = 512;
constexpr int64_t kFewUnits = 16;

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
  int64_t total = delta_.bytes() + partial_.bytes();
  for (const Scratch& scratch : scratch_) {
    for (const auto& panels : scratch.panels) total += panels.bytes();
    total += scratch.scores.bytes() + scratch.d_scores.bytes() + scratch.p.bytes() +
             scratch.ds.bytes() + scratch.turned.bytes();
  }
  return total;
}

void TrainAttention::Plan(const TrainAttentionShape& shape) {
  BAKESTONE_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 &&
                  shape.head_dim % 2 == 0 && !shape.document_begins.empty());
  blocks_.clear();
  documents_.clear();
  int64_t longest = 0;
  for (size_t i = 0; i < shape.document_begins.size(); ++i) {
    const int64_t begin = shape.document_begins[i];
    const int64_t end =
        i + 1 < shape.document_begins.size() ? shape.document_begins[i + 1] : shape.rows;
    longest = std::max(longest, end - begin);
    documents_.push_back({begin, end});
    for (int64_t row = begin; row < end; row += kBlockRows) {
      blocks_.push_back({begin, row, std::min(row + kBlockRows, end)});
    }
  }
  longest = RoundUp(longest, kTrainLanes);
  if (longest > longest_ || shape.head_dim > head_dim_) {
    longest_ = std::max(longest, longest_);
    head_dim_ = std::max(shape.head_dim, head_dim_);
    const int64_t panel = longest_ * RoundUp(head_dim_, kTrainLanes);
    for (Scratch& scratch : scratch_) {
      for (auto& panels : scratch.panels) panels = Buffer<uint16_t>(panel);
      const int64_t chunk = std::min(longest_, kQueries);
      scratch.scores = Buffer<float>(kRows * longest_);
      scratch.d_scores = Buffer<float>(kRows * chunk);
      scratch.p = Buffer<uint16_t>(kRows * longest_, Fill::kZero);
      scratch.ds = Buffer<uint16_t>(kRows * chunk, Fill::kZero);
      scratch.turned = Buffer<uint16_t>(kRows * (chunk + kTrainTileRows), Fill::kZero);
    }
  }
}

void TrainAttention::Cap(const TrainAttentionShape& shape, float* scores, int64_t rows,
                         int64_t cols, int64_t stride) const {
  if (shape.soft_cap <= 0) return;
  const float scale = ScaleOf(shape);
  for (int64_t row = 0; row < rows; ++row) {
    kernels_.soft_cap(scores + row * stride, cols, scale / shape.soft_cap, shape.soft_cap / scale);
  }
}

void TrainAttention::AddSink(float sink, int64_t rows, int64_t dim, int64_t stride, uint16_t* out,
                             float* log_sum) {
  for (int64_t row = 0; row < rows; ++row) {
    const float share = 1.0f / (1.0f + std::exp(sink - log_sum[row]));  // of all tokens
    log_sum[row] -= std::log(share);
    uint16_t* own = out + row * stride;
    for (int64_t i = 0; i < dim; ++i) own[i] = FloatToBF16(share * BF16ToFloat(own[i]));
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
    Cap(shape, scratch.scores.data(), rows, seen, padded);
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
    if (shape.sinks == nullptr) continue;
    AddSink(shape.sinks[head], rows, dim, q_stride, out + row * q_stride + head * dim,
            log_sum + head * shape.rows + row);
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

// Of one head of one document: dQ, and what it adds to dK and dV. Keys by blocks, the queries that
// see them by chunks, so that both tiles of scores stay in L2 however long the document is.
void TrainAttention::HeadBackward(const TrainAttentionShape& shape, const Document& document,
                                  int64_t head, const Inputs& in, const KeyPanels& keys,
                                  const Sums& to, bool first_head, Scratch& scratch) const {
  const int64_t dim = shape.head_dim, q_stride = shape.heads * dim;
  const int64_t kv_stride = shape.kv_heads * dim, kv_head = head / (shape.heads / shape.kv_heads);
  const int64_t count = document.end - document.begin;
  const int64_t pair_stride = RoundUp(count, kTrainLanes) * kTrainLanes;
  const int64_t q_at = document.begin * q_stride + head * dim;
  uint16_t *q_lanes = scratch.panels[0].data(), *d_lanes = scratch.panels[1].data();
  uint16_t *q_pairs = scratch.panels[2].data(), *d_pairs = scratch.panels[3].data();
  PackLanes(kernels_, in.q + q_at, q_stride, count, dim, q_lanes);
  PackLanes(kernels_, in.d_out + q_at, q_stride, count, dim, d_lanes);
  PackPairs(kernels_, in.q + q_at, q_stride, count, dim, q_pairs);
  PackPairs(kernels_, in.d_out + q_at, q_stride, count, dim, d_pairs);
  float* dq = to.q + document.begin * to.q_stride + head * dim;
  for (int64_t i = 0; i < count; ++i) std::fill_n(dq + i * to.q_stride, dim, 0.0f);
  for (int64_t key = 0; key < count; key += kRows) {
    const int64_t rows = std::min(kRows, count - key);
    const int64_t kv_at = (document.begin + key) * kv_stride + kv_head * dim;
    const int64_t k_to = (document.begin + key) * to.kv_stride + kv_head * dim;
    TrainStore store = first_head ? TrainStore::kF32 : TrainStore::kAddF32;
    for (int64_t query = key / kTrainLanes * kTrainLanes; query < count; query += kQueries) {
      if (shape.window > 0 && query >= key + rows - 1 + shape.window) break;
      const int64_t seen = std::min(kQueries, count - query), padded = RoundUp(seen, kTrainLanes);
      Multiply(kernels_, {in.k + kv_at, kv_stride, q_lanes + query * dim, dim * kTrainLanes, dim,
                          rows, seen, scratch.scores.data(), padded, TrainStore::kF32});
      Multiply(kernels_, {in.v + kv_at, kv_stride, d_lanes + query * dim, dim * kTrainLanes, dim,
                          rows, seen, scratch.d_scores.data(), padded, TrainStore::kF32});
      Cap(shape, scratch.scores.data(), rows, seen, padded);
      if (shape.window > 0) {
        HideFrom({scratch.scores.data(), padded, rows, seen, key + shape.window - query});
      }
      const int64_t statistics = head * shape.rows + document.begin + query;
      kernels_.softmax_backward({.s = scratch.scores.data(),
                                 .dp = scratch.d_scores.data(),
                                 .stride = padded,
                                 .rows = rows,
                                 .first_visible = query - key,
                                 .cols = seen,
                                 .padded_cols = padded,
                                 .scale = ScaleOf(shape),
                                 .log_sum = in.log_sum + statistics,
                                 .delta = delta_.data() + statistics,
                                 .by_column = true,
                                 .p = scratch.p.data(),
                                 .ds = scratch.ds.data(),
                                 .out_stride = padded});
      for (int64_t row = 0; row < rows && shape.soft_cap > 0; ++row) {
        kernels_.soft_cap_backward(scratch.scores.data() + row * padded,
                                   ScaleOf(shape) / shape.soft_cap,
                                   scratch.ds.data() + row * padded, seen);
      }
      Multiply(kernels_, {scratch.ds.data(), padded, q_pairs + query * kTrainLanes, pair_stride,
                          padded, rows, dim, to.k + k_to, to.kv_stride, store});
      Multiply(kernels_, {scratch.p.data(), padded, d_pairs + query * kTrainLanes, pair_stride,
                          padded, rows, dim, to.v + k_to, to.kv_stride, store});
      store = TrainStore::kAddF32;
      const int64_t turned = RoundUp(rows, kTrainLanes);
      kernels_.transpose(scratch.ds.data(), padded, rows, scratch.turned.data(), turned, 0, seen);
      Multiply(kernels_,
               {scratch.turned.data(), turned, keys.pairs + key * kTrainLanes, pair_stride, turned,
                seen, dim, dq + query * to.q_stride, to.q_stride, TrainStore::kAddF32});
    }
  }
}

// dK and dV of the documents are sums over the heads that share a key. One unit of work has either
// all of them, or, where that would be too few units for a handful of threads, one: their sums are
// apart then, and added in order.
void TrainAttention::Unit(const TrainAttentionShape& shape, int64_t unit, const Inputs& in,
                          const Gradients& gradients, Scratch& scratch) {
  const int64_t group = shape.heads / shape.kv_heads, heads = apart_ ? 1 : group;
  const int64_t units = shape.heads / heads;
  const Document& document = documents_[static_cast<size_t>(unit / units)];
  const int64_t first = unit % units * heads;
  const int64_t at = document.begin * shape.kv_heads * shape.head_dim;
  KeyPanels keys = {scratch.panels[4].data()};
  PackPairs(kernels_, in.k + at + first / group * shape.head_dim, shape.kv_heads * shape.head_dim,
            document.end - document.begin, shape.head_dim, keys.pairs);
  for (int64_t head = first; head < first + heads; ++head) {
    const int64_t member = head % group;
    Sums to = {gradients.q, gradients.k, gradients.v, gradients.q_stride, gradients.kv_stride};
    if (apart_ && member > 0) {
      to.kv_stride = shape.kv_heads * shape.head_dim;
      to.k = partial_.data() + (member - 1) * 2 * shape.rows * to.kv_stride;
      to.v = to.k + shape.rows * to.kv_stride;
    }
    HeadBackward(shape, document, head, in, keys, to, apart_ || member == 0, scratch);
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
  const Inputs in = {q, k, v, d_out, log_sum};
  const int64_t group = shape.heads / shape.kv_heads;
  const auto documents = static_cast<int64_t>(documents_.size());
  apart_ = group > 1 && documents * shape.kv_heads < kFewUnits;
  const int64_t kv_dim = shape.kv_heads * shape.head_dim, size = shape.rows * kv_dim;
  if (apart_ && partial_.size() < (group - 1) * 2 * size) {
    partial_ = Buffer<float>((group - 1) * 2 * size);
  }
  pool_.ParallelFor(documents * (apart_ ? shape.heads : shape.kv_heads), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      for (int64_t unit = begin; unit < end; ++unit) {
                        Unit(shape, unit, in, gradients, scratch_[static_cast<size_t>(thread)]);
                      }
                    });
  if (!apart_) return;
  pool_.ParallelFor(shape.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t which = 0; which < 2; ++which) {
        float* sums = (which == 0 ? gradients.k : gradients.v) + row * gradients.kv_stride;
        const float* from = partial_.data() + which * size + row * kv_dim;
        for (int64_t member = 1; member < group; ++member, from += 2 * size) {
          for (int64_t i = 0; i < kv_dim; ++i) sums[i] += from[i];
        }
      }
    }
  });
}

}  // namespace bakestone::ops
