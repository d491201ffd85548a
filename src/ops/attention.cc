#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kMaxHeadDim = 512;

void CheckShape(const AttentionShape& shape) {
  BAKESTONE_CHECK(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
  BAKESTONE_CHECK(shape.head_dim > 0 && shape.head_dim % 2 == 0 && shape.head_dim <= kMaxHeadDim);
}

void CheckRuns(std::span<const KvRun> runs, int64_t rows) {
  for (const KvRun& run : runs) {
    BAKESTONE_CHECK(run.row_begin >= 0 && run.row_begin <= run.row_end && run.row_end <= rows);
    BAKESTONE_CHECK(run.first_slot >= 0 && run.k_pages != nullptr && run.v_pages != nullptr);
  }
}

const AttentionKernels& Kernels(const Context& context, KvElement element) {
  return context.serve().attention[static_cast<int>(element)];
}

struct Tile {
  const KvRun* run;
  Range rows;
};

// Tiles of at most kAttentionTile rows; the bits do not depend on where they are cut.
std::vector<Tile> Tiles(std::span<const KvRun> runs) {
  std::vector<Tile> tiles;
  for (const KvRun& run : runs) {
    for (int64_t row = run.row_begin; row < run.row_end; row += kAttentionTile) {
      tiles.push_back({&run, {row, std::min(row + kAttentionTile, run.row_end)}});
    }
  }
  return tiles;
}

}  // namespace

int64_t KvPageBytes(const AttentionShape& shape) {
  CheckShape(shape);
  return shape.kv_heads * shape.head_dim * kKvBlock * (shape.element == KvElement::kBF16 ? 2 : 4);
}

void WriteKv(Context& context, const AttentionShape& shape, std::span<const KvRun> runs,
             MatrixView<const float> k, MatrixView<const float> v) {
  CheckShape(shape);
  CheckRuns(runs, k.rows);
  BAKESTONE_CHECK(k.rows == v.rows && k.cols == shape.kv_heads * shape.head_dim && v.cols == k.cols);
  const WriteKvArgs args{k.data,         v.data,         k.stride,       v.stride,
                         shape.kv_heads, shape.head_dim, context.error()};
  const std::vector<Tile> tiles = Tiles(runs);
  context.pool().ParallelFor(
      static_cast<int64_t>(tiles.size()), 4, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const Tile& tile = tiles[static_cast<size_t>(i)];
          Kernels(context, shape.element).write(args, *tile.run, tile.rows);
        }
      });
  context.ThrowIfError("keys and values");
}

void Attention(Context& context, const AttentionShape& shape, std::span<const KvRun> runs,
               MatrixView<const float> q, MatrixView<float> out) {
  CheckShape(shape);
  CheckRuns(runs, q.rows);
  BAKESTONE_CHECK(q.rows == out.rows && q.cols == shape.heads * shape.head_dim && out.cols == q.cols);
  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  const AttentionArgs args{q.data,      out.data,       q.stride,       out.stride,
                           shape.heads, shape.kv_heads, shape.head_dim, scale};
  context.Reserve(AttentionScratchBytes(shape.heads / shape.kv_heads, shape.head_dim));
  const std::vector<Tile> tiles = Tiles(runs);
  // Late tiles see more slots: taken one by one, last first, so that the longest do not come last.
  const int64_t units = static_cast<int64_t>(tiles.size()) * shape.kv_heads;
  context.pool().ParallelFor(units, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t unit = units - 1 - i;
      const Tile& tile = tiles[static_cast<size_t>(unit / shape.kv_heads)];
      Kernels(context, shape.element)
          .tile(args, *tile.run, tile.rows, unit % shape.kv_heads, context.scratch(thread));
    }
  });
}

void TemporaryPages::Reset(const AttentionShape& shape, int64_t slots) {
  const int64_t pages = (slots + kKvBlock - 1) / kKvBlock, bytes = KvPageBytes(shape);
  if (storage_.size() < 2 * pages * bytes) {
    storage_ = Buffer<uint8_t>(2 * pages * bytes, Fill::kZero);
  } else {
    std::fill(storage_.begin(), storage_.end(), uint8_t{0});
  }
  k_.clear();
  v_.clear();
  for (int64_t i = 0; i < pages; ++i) {
    k_.push_back(storage_.data() + 2 * i * bytes);
    v_.push_back(storage_.data() + (2 * i + 1) * bytes);
  }
}

}  // namespace bakestone::ops
