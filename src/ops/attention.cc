#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/row_parts.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kMaxHeadDim = 512;

void CheckShape(const AttentionShape& shape) {
  BAKESTONE_CHECK(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
  BAKESTONE_CHECK(shape.head_dim > 0 && shape.head_dim % 2 == 0 && shape.head_dim <= kMaxHeadDim);
  BAKESTONE_CHECK(shape.window >= 0 && shape.soft_cap >= 0 && shape.scale >= 0);
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

  int64_t last_slot() const { return LastVisibleSlot(*run, rows.end - 1); }
  int64_t first_slot(const AttentionArgs& args) const {  // that a row of it sees
    return FirstVisibleSlot(args, SlotOf(*run, rows.begin));
  }
};

// Tiles of at most `most` rows that end where their slots are a multiple of it; the bits do not
// depend on where they are cut.
std::vector<Tile> Tiles(std::span<const KvRun> runs, int64_t most) {
  std::vector<Tile> tiles;
  for (const KvRun& run : runs) {
    for (int64_t row = run.row_begin; row < run.row_end;) {
      const int64_t over = run.slot_step == 0 ? 0 : SlotOf(run, row) % most;
      const int64_t end = std::min(row + most - over, run.row_end);
      tiles.push_back({&run, {row, end}});
      row = end;
    }
  }
  return tiles;
}

// A piece of work: the rows of a tile and one key/value head, over all that they see, or over one
// segment (its partial result goes to `partial`).
struct Unit {
  const Tile* tile;
  int64_t kv_head;
  int64_t segment = -1;
  int64_t partial = 0;  // index of the first float
  int64_t cost = 0;     // rows * slots
};

struct Plan {
  // By the thread whose rows they are (SplitRows), as the pool shares them out; of each the longest
  // first, so that what others help with at the end is short.
  std::vector<Unit> units;
  std::vector<Unit> merges;  // of those that were cut
  int64_t partials = 0;      // floats
};

// A unit that is more than this share of one thread's part is cut into segments: a row that decodes
// at a long context, where there are only as many units as key/value heads.
constexpr int64_t kUnitsPerThread = 8;
// Partial results that may exist at once: one row of 32 heads of 128 over 400,000 slots. With more
// rows there are more units, and no need to cut them.
constexpr int64_t kMaxPartials = int64_t{4} << 20;

Plan MakePlan(const AttentionArgs& args, std::span<const Tile> tiles, int64_t rows, int threads) {
  Plan plan;
  int64_t total = 0;
  for (const Tile& tile : tiles) {
    const int64_t slots = tile.last_slot() + 1 - tile.first_slot(args);
    const int64_t cost = (tile.rows.end - tile.rows.begin) * slots;
    total += cost * args.kv_heads;
    for (int64_t head = 0; head < args.kv_heads; ++head) {
      plan.units.push_back({&tile, head, -1, 0, cost});
    }
  }
  const auto is_long = [&](const Unit& unit) {
    const bool several =
        unit.tile->last_slot() / kKvSegment > unit.tile->first_slot(args) / kKvSegment;
    return threads > 1 && several && unit.cost * threads * kUnitsPerThread > total;
  };
  const int64_t group = args.heads / args.kv_heads, stride = AttentionPartialStride(args.head_dim);
  std::vector<Unit> units;
  for (Unit unit : plan.units) {
    const int64_t rows = unit.tile->rows.end - unit.tile->rows.begin;
    const int64_t first = unit.tile->first_slot(args), last = unit.tile->last_slot();
    const int64_t size = (last / kKvSegment - first / kKvSegment + 1) * rows * group * stride;
    if (!is_long(unit) || plan.partials + size > kMaxPartials) {
      units.push_back(unit);
      continue;
    }
    unit.partial = plan.partials;
    plan.merges.push_back(unit);
    for (unit.segment = first / kKvSegment; unit.segment <= last / kKvSegment; ++unit.segment) {
      const int64_t begin = unit.segment * kKvSegment;
      unit.cost = rows * (std::min(begin + kKvSegment, last + 1) - std::max(begin, first));
      units.push_back(unit);
      unit.partial += rows * group * stride;
    }
    plan.partials += size;
  }
  plan.units = std::move(units);
  const RowParts parts = SplitRows(rows, threads);
  std::stable_sort(plan.units.begin(), plan.units.end(), [&](const Unit& a, const Unit& b) {
    const int64_t part_a = a.tile->rows.begin / parts.rows,
                  part_b = b.tile->rows.begin / parts.rows;
    return part_a != part_b ? part_a < part_b : a.cost > b.cost;
  });
  return plan;
}

}  // namespace

int64_t KvPageBytes(const AttentionShape& shape) {
  CheckShape(shape);
  return shape.kv_heads * KvHeadBytes(shape.element, shape.head_dim);
}

void WriteKv(Context& context, const AttentionShape& shape, std::span<const KvRun> runs,
             MatrixView<const float> k, MatrixView<const float> v) {
  CheckShape(shape);
  CheckRuns(runs, k.rows);
  BAKESTONE_CHECK(k.rows == v.rows && k.cols == shape.kv_heads * shape.head_dim &&
                  v.cols == k.cols);
  const WriteKvArgs args{k.data,         v.data,         k.stride,       v.stride,
                         shape.kv_heads, shape.head_dim, context.error()};
  const std::vector<Tile> tiles = Tiles(runs, kKvBlock);  // one page each: nobody else writes to it
  context.pool().ParallelFor(static_cast<int64_t>(tiles.size()), 1,
                             [&](int64_t begin, int64_t end, int) {
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
  BAKESTONE_CHECK(q.rows == out.rows && q.cols == shape.heads * shape.head_dim &&
                  out.cols == q.cols);
  const float scale =
      shape.scale > 0 ? shape.scale : 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  const AttentionArgs args{q.data,       out.data,       q.stride,       out.stride,
                           shape.heads,  shape.kv_heads, shape.head_dim, scale,
                           shape.window, shape.soft_cap, shape.sinks};
  context.Reserve(AttentionScratchBytes(shape.heads / shape.kv_heads, shape.head_dim));
  const std::vector<Tile> tiles = Tiles(runs, kAttentionTile);
  const Plan plan = MakePlan(args, tiles, q.rows, context.pool().num_threads());
  float* partials = context.ReservePartials(plan.partials);
  const AttentionKernels& kernels = Kernels(context, shape.element);
  context.pool().ParallelFor(
      static_cast<int64_t>(plan.units.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          const Unit& unit = plan.units[static_cast<size_t>(i)];
          const Tile& tile = *unit.tile;
          if (unit.segment < 0) {
            kernels.tile(args, *tile.run, tile.rows, unit.kv_head, context.scratch(thread));
            continue;
          }
          kernels.segment(args, *tile.run, tile.rows, unit.kv_head, unit.segment,
                          partials + unit.partial, context.scratch(thread));
        }
      });
  for (const Unit& unit : plan.merges) {
    kernels.merge(args, *unit.tile->run, unit.tile->rows, unit.kv_head, partials + unit.partial,
                  context.scratch(0));
  }
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
