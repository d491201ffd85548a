#include "model/train_lora.h"

#include <algorithm>

#include "ops/train_products.h"

namespace bakestone {
namespace {

int64_t PadRank(int64_t rank) { return ops::PanelsOf(rank) * kTrainLanes; }

// Elements of panels that one group needs: A twice and each B twice.
int64_t GroupSize(const GroupShape& shape, const LoraGroup& lora) {
  int64_t size = 2 * lora.r * shape.in;
  for (int i = 0; i < shape.num_sites; ++i) {
    const auto at = static_cast<size_t>(i);
    size += 2 * PadRank(lora.parts[at].rank) * (shape.out_begin[at + 1] - shape.out_begin[at]);
  }
  return size;
}

void PackGroup(const TrainKernels& kernels, const GroupShape& shape, const Adapter& adapter,
               int64_t layer, LoraGroup& lora, uint16_t* panels, float* scale) {
  uint16_t* a_forward = panels;
  uint16_t* a_backward = panels + lora.r * shape.in;
  uint16_t* next = a_backward + lora.r * shape.in;
  lora.a_forward = a_forward;
  lora.a_backward = a_backward;
  lora.scale = scale;
  for (int i = 0; i < shape.num_sites; ++i) {
    const auto at = static_cast<size_t>(i);
    LoraGroup::Part& part = lora.parts[at];
    if (part.rank == 0) continue;
    const LoraPair& pair = *adapter.Find({static_cast<int32_t>(layer), shape.sites[at]});
    const int64_t padded = PadRank(part.rank);
    const int64_t out = shape.out_begin[at + 1] - shape.out_begin[at];
    std::fill_n(scale + part.r_begin, padded, pair.scale);
    kernels.pack_lanes(pair.a.data, pair.a.stride, part.rank, shape.in, shape.in,
                       a_forward + part.r_begin * shape.in, shape.in * kTrainLanes, 0,
                       ops::PanelsOf(part.rank));
    kernels.pack_pairs(pair.a.data, pair.a.stride, part.rank, shape.in, padded,
                       a_backward + part.r_begin * kTrainLanes, lora.r * kTrainLanes, 0,
                       ops::PanelsOf(shape.in));
    kernels.pack_lanes(pair.b.data, pair.b.stride, out, part.rank, padded, next,
                       padded * kTrainLanes, 0, ops::PanelsOf(out));
    part.b_forward = next;
    next += padded * out;
    kernels.pack_pairs(pair.b.data, pair.b.stride, out, part.rank, out, next, out * kTrainLanes, 0,
                       ops::PanelsOf(part.rank));
    part.b_backward = next;
    next += padded * out;
  }
}

}  // namespace

void PackedAdapter::Pack(const ModelConfig& config, const Adapter* adapter,
                         const TrainKernels& kernels, ThreadPool& pool) {
  const int64_t count = config.num_layers * kNumTrainGroups;
  groups_.assign(static_cast<size_t>(count), LoraGroup{});
  widest_ = total_ = 0;
  if (adapter == nullptr) return;
  std::vector<int64_t> offsets(static_cast<size_t>(count) + 1), scales(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const GroupShape shape = ShapeOf(config, static_cast<TrainGroup>(i % kNumTrainGroups));
    LoraGroup& lora = groups_[static_cast<size_t>(i)];
    for (int s = 0; s < shape.num_sites; ++s) {
      const auto at = static_cast<size_t>(s);
      const LoraPair* pair =
          adapter->Find({static_cast<int32_t>(i / kNumTrainGroups), shape.sites[at]});
      lora.parts[at] = {.site = s, .rank = pair == nullptr ? 0 : pair->a.rows, .r_begin = lora.r};
      lora.r += PadRank(lora.parts[at].rank);
    }
    scales[static_cast<size_t>(i)] = total_;
    total_ += lora.r;
    widest_ = std::max(widest_, lora.r);
    offsets[static_cast<size_t>(i) + 1] = offsets[static_cast<size_t>(i)] + GroupSize(shape, lora);
  }
  if (panels_.size() != offsets.back()) panels_ = Buffer<uint16_t>(offsets.back());
  if (scales_.size() != total_) scales_ = Buffer<float>(total_);
  pool.ParallelFor(count, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<size_t>(i);
      PackGroup(kernels, ShapeOf(config, static_cast<TrainGroup>(i % kNumTrainGroups)), *adapter,
                i / kNumTrainGroups, groups_[at], panels_.data() + offsets[at],
                scales_.data() + scales[at]);
    }
  });
}

void LinearScratch::Reserve(int64_t rows, int64_t widest) {
  const int64_t size = (rows + kTrainTileRows) * widest;
  if (d_xa.size() >= size) return;
  for (Buffer<uint16_t>* buffer : {&d_xa, &xa_pairs, &d_xa_pairs}) {
    *buffer = Buffer<uint16_t>(size, Fill::kZero);
  }
}

void Forward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
             const LoraGroup& lora, const uint16_t* panels, const LinearForward& args) {
  TrainGemmArgs product{};
  product.segments[0] = {args.x, shape.in, panels, shape.in * kTrainLanes, shape.in};
  product.num_segments = 1;
  product.rows = args.rows;
  product.out_stride = shape.out;
  product.store = args.store;
  if (lora.r == 0) {
    product.cols = shape.out;
    product.out = args.out;
    ops::TrainGemm(kernels, pool, product);
    return;
  }
  TrainGemmArgs down = product;
  down.segments[0].panels = lora.a_forward;
  down.cols = down.out_stride = lora.r;
  down.out = args.xa;
  down.store = TrainStore::kBF16;
  down.column_scale = lora.scale;
  ops::TrainGemm(kernels, pool, down);
  const int64_t element = args.store == TrainStore::kBF16 ? 2 : 4;
  for (int i = 0; i < shape.num_sites; ++i) {
    const auto at = static_cast<size_t>(i);
    const LoraGroup::Part& part = lora.parts[at];
    const int64_t padded = PadRank(part.rank);
    product.segments[0].panels = panels + shape.out_begin[at] * shape.in;
    product.segments[1] = {args.xa + part.r_begin, lora.r, part.b_forward, padded * kTrainLanes,
                           padded};
    product.num_segments = part.rank == 0 ? 1 : 2;
    product.cols = shape.out_begin[at + 1] - shape.out_begin[at];
    product.out = static_cast<char*>(args.out) + shape.out_begin[at] * element;
    ops::TrainGemm(kernels, pool, product);
  }
}

void Backward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
              const LoraGroup& lora, const uint16_t* transposed, const LinearBackward& args,
              LinearScratch& scratch) {
  const int64_t even = args.rows + args.rows % 2;
  if (lora.r > 0) {
    scratch.Reserve(args.rows, lora.r);
    for (int i = 0; i < shape.num_sites; ++i) {
      const auto at = static_cast<size_t>(i);
      const LoraGroup::Part& part = lora.parts[at];
      if (part.rank == 0) continue;
      const int64_t out = shape.out_begin[at + 1] - shape.out_begin[at];
      TrainGemmArgs up{};
      up.segments[0] = {args.dy + shape.out_begin[at], shape.out, part.b_backward,
                        out * kTrainLanes, out};
      up.num_segments = 1;
      up.store = TrainStore::kBF16;
      up.rows = args.rows;
      up.cols = PadRank(part.rank);
      up.out = scratch.d_xa.data() + part.r_begin;
      up.out_stride = lora.r;
      up.column_scale = lora.scale + part.r_begin;
      ops::TrainGemm(kernels, pool, up);
    }
    ops::PackOuter(kernels, pool, args.xa, args.rows, lora.r, scratch.xa_pairs.data());
    ops::PackOuter(kernels, pool, scratch.d_xa.data(), args.rows, lora.r,
                   scratch.d_xa_pairs.data());
  }
  for (int i = 0; i < shape.num_sites; ++i) {
    const auto at = static_cast<size_t>(i);
    const LoraSlot* slot = args.slots[at];
    if (slot == nullptr) continue;
    const int64_t first = lora.parts[at].r_begin * even;
    const int64_t out = shape.out_begin[at + 1] - shape.out_begin[at];
    ops::TrainOuter(kernels, pool,
                    {.s = scratch.xa_pairs.data() + first,
                     .s_panel_stride = even * kTrainLanes,
                     .z = args.dy + shape.out_begin[at],
                     .z_stride = shape.out,
                     .rows = args.rows,
                     .r = slot->rank,
                     .cols = out,
                     .out = args.gradients + slot->b_offset,
                     .out_row_stride = 1,
                     .out_col_stride = slot->rank});
    ops::TrainOuter(kernels, pool,
                    {.s = scratch.d_xa_pairs.data() + first,
                     .s_panel_stride = even * kTrainLanes,
                     .z = args.x,
                     .z_stride = shape.in,
                     .rows = args.rows,
                     .r = slot->rank,
                     .cols = shape.in,
                     .out = args.gradients + slot->a_offset,
                     .out_row_stride = shape.in,
                     .out_col_stride = 1});
  }
  if (args.dx == nullptr) return;
  TrainGemmArgs product{};
  product.segments[0] = {args.dy, shape.out, transposed, shape.out * kTrainLanes, shape.out};
  product.segments[1] = {scratch.d_xa.data(), lora.r, lora.a_backward, lora.r * kTrainLanes, lora.r};
  product.num_segments = lora.r > 0 ? 2 : 1;
  product.store = args.store;
  product.rows = args.rows;
  product.cols = product.out_stride = shape.in;
  product.out = args.dx;
  ops::TrainGemm(kernels, pool, product);
}

}  // namespace bakestone
