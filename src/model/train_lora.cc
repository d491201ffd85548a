#include "model/train_lora.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

int64_t OutOf(const GroupShape& shape, size_t site) {
  return shape.out_begin[site + 1] - shape.out_begin[site];
}

// ||w||^2 of 16 rows that lie in one panel.
void PanelSquares(const uint16_t* panel, int64_t in, float* squares) {
  double sums[kTrainLanes] = {};
  for (int64_t i = 0; i < in * kTrainLanes; i += 2) {
    const double even = BF16ToFloat(panel[i]), odd = BF16ToFloat(panel[i + 1]);
    sums[i / 2 % kTrainLanes] += even * even + odd * odd;
  }
  for (int64_t lane = 0; lane < kTrainLanes; ++lane) squares[lane] = static_cast<float>(sums[lane]);
}

}  // namespace

PackedPairs::PackedPairs(const ModelConfig& config)
    : config_(config),
      groups_of_layer_(kNumTrainGroups + 2 * config.router.experts),
      groups_(static_cast<size_t>(config.num_layers * groups_of_layer_)) {}

PackedPairs::Place PackedPairs::PlaceAt(size_t index) const {
  const auto [layer, at] = std::div(static_cast<int64_t>(index), groups_of_layer_);
  const bool own = at < kNumTrainGroups;
  const int64_t expert = own ? -1 : (at - kNumTrainGroups) / 2;
  const auto group = static_cast<TrainGroup>(own ? at : 2 + at % 2);
  return {layer, expert, ShapeOf(config_, layer, group, expert)};
}

int64_t PackedPairs::bytes() const noexcept {
  return rounded_.bytes() + panels_.bytes() + scales_.bytes() + base_squares_.bytes() +
         output_scales_.bytes() + inverse_magnitudes_.bytes() + aw_.bytes() + aa_.bytes();
}

// Where everything lies: a function of the layout alone.
void PackedPairs::Plan(const TrainLayout& layout, const TrainKernels& kernels) {
  layout_ = &layout;
  dora_ = layout.dora();
  widest_ = 0;
  int64_t panels = 0, scales = 0, outputs = 0, rank = 0, widest_in = 0, widest_out = 0;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Place place = PlaceAt(i);
    const GroupShape& shape = place.shape;
    LoraGroup& lora = groups_[i] = {};
    panel_begin_.push_back(panels);
    scale_begin_.push_back(scales);
    output_begin_.push_back(outputs);
    for (size_t s = 0; s < static_cast<size_t>(shape.num_sites); ++s) {
      const LoraSlot* slot = layout.Find(place.id(s));
      const int64_t slot_rank = slot == nullptr ? 0 : slot->rank;
      const int64_t padded = ops::PadRank(slot_rank), inner = ops::PadInner(kernels, padded);
      lora.parts[s] = {
          .site = static_cast<int>(s), .rank = slot_rank, .r_begin = lora.r, .inner = inner};
      lora.r += padded;
      panels += (padded + inner) * OutOf(shape, s);
      rank = std::max(rank, slot_rank);
    }
    lora.inner = ops::PadInner(kernels, lora.r);
    panels += (lora.r + lora.inner) * shape.in;
    scales += lora.r;
    outputs += shape.out;
    widest_ = std::max(widest_, lora.r);
    widest_in = std::max(widest_in, shape.in);
    widest_out = std::max(widest_out, shape.out);
  }
  const LoraSlot& last = layout.slots.back();
  rounded_ = Buffer<uint16_t>(last.b_offset + last.out * last.rank + kTrainTileRows * widest_in,
                              Fill::kZero);
  panels_ = Buffer<uint16_t>(panels, Fill::kZero);
  scales_ = Buffer<float>(scales);
  if (!dora_) return;
  base_squares_ = Buffer<float>(outputs);
  output_scales_ = Buffer<float>(outputs);
  inverse_magnitudes_ = Buffer<float>(outputs);
  squares_known_.assign(groups_.size(), 0);
  scales_known_.assign(groups_.size(), 0);
  aw_ = Buffer<float>(ops::PadRank(rank) * widest_out);
  aa_ = Buffer<float>(ops::PadRank(rank) * ops::PadRank(rank));
}

void PackedPairs::PackGroup(size_t index, float scale, const TrainKernels& kernels) {
  const Place place = PlaceAt(index);
  const GroupShape& shape = place.shape;
  LoraGroup& lora = groups_[index];
  uint16_t* a_forward = panels_.data() + panel_begin_[index];
  uint16_t* a_backward = a_forward + lora.r * shape.in;
  uint16_t* next = a_backward + lora.inner * shape.in;
  lora.a_forward = a_forward;
  lora.a_backward = a_backward;
  lora.scale = scales_.data() + scale_begin_[index];
  for (size_t s = 0; s < static_cast<size_t>(shape.num_sites); ++s) {
    LoraGroup::Part& part = lora.parts[s];
    if (part.rank == 0) continue;
    const LoraSlot& slot = *layout_->Find(place.id(s));
    const uint16_t* a = rounded_.data() + slot.a_offset;
    const uint16_t* b = rounded_.data() + slot.b_offset;
    const int64_t padded = ops::PadRank(part.rank);
    std::fill_n(scales_.data() + scale_begin_[index] + part.r_begin, padded, scale);
    kernels.pack_lanes(a, shape.in, part.rank, shape.in, shape.in,
                       a_forward + part.r_begin * shape.in, shape.in * kTrainLanes, 0,
                       ops::PanelsOf(part.rank));
    kernels.pack_pairs(a, shape.in, part.rank, shape.in, padded,
                       a_backward + part.r_begin * kTrainLanes, lora.inner * kTrainLanes, 0,
                       ops::PanelsOf(shape.in));
    kernels.pack_lanes(b, part.rank, slot.out, part.rank, part.inner, next,
                       part.inner * kTrainLanes, 0, ops::PanelsOf(slot.out));
    part.b_forward = next;
    next += part.inner * slot.out;
    kernels.pack_pairs(b, part.rank, slot.out, part.rank, slot.out, next, slot.out * kTrainLanes, 0,
                       ops::PanelsOf(part.rank));
    part.b_backward = next;
    next += padded * slot.out;
  }
}

void PackedPairs::Pack(const TrainLayout& layout, std::span<const float> values, float scale,
                       const TrainKernels& kernels, ThreadPool& pool) {
  if (layout_ != &layout) Plan(layout, kernels);
  scale_ = scale;
  values_ = values;
  std::fill(scales_known_.begin(), scales_known_.end(), uint8_t{0});
  const LoraSlot& last = layout.slots.back();
  ops::TrainToBf16(kernels, pool, values.data(), rounded_.data(),
                   last.b_offset + last.out * last.rank);
  pool.ParallelFor(static_cast<int64_t>(groups_.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) PackGroup(static_cast<size_t>(i), scale, kernels);
  });
}

// ||W + s B A||^2 of a row o is ||w||^2 + 2 s b (A w) + s^2 b (A A^T) b^T, with b the row of B.
void PackedPairs::ScaleSite(const LoraSlot& slot, const uint16_t* panels, const uint16_t* a_lanes,
                            float* squares, bool known, float* scale, const TrainKernels& kernels,
                            ThreadPool& pool) {
  const uint16_t* a = rounded_.data() + slot.a_offset;
  TrainGemmArgs product{};
  product.segments[0] = {a, slot.in, panels, slot.in * kTrainLanes, slot.in};
  product.num_segments = 1;
  product.store = TrainStore::kF32;
  product.rows = slot.rank;
  product.cols = product.out_stride = slot.out;
  product.out = aw_.data();
  ops::TrainGemm(kernels, pool, product);
  product.segments[0].panels = a_lanes;
  product.cols = product.out_stride = slot.rank;
  product.out = aa_.data();
  ops::TrainGemm(kernels, pool, product);
  const auto s = static_cast<double>(scale_);
  pool.ParallelFor(slot.out / kTrainLanes, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t panel = begin; panel < end && !known; ++panel) {
      PanelSquares(panels + panel * slot.in * kTrainLanes, slot.in, squares + panel * kTrainLanes);
    }
    for (int64_t o = begin * kTrainLanes; o < end * kTrainLanes; ++o) {
      const uint16_t* b = rounded_.data() + slot.b_offset + o * slot.rank;
      double cross = 0, square = 0;
      for (int64_t r = 0; r < slot.rank; ++r) {
        const double b_r = BF16ToFloat(b[r]);
        double sum = 0;
        for (int64_t c = 0; c < slot.rank; ++c) {
          sum +=
              static_cast<double>(aa_[r * slot.rank + c]) * static_cast<double>(BF16ToFloat(b[c]));
        }
        cross += b_r * static_cast<double>(aw_[r * slot.out + o]);
        square += b_r * sum;
      }
      const double norm =
          std::sqrt(static_cast<double>(squares[o]) + 2 * s * cross + s * s * square);
      const auto magnitude =
          static_cast<double>(values_[static_cast<size_t>(slot.magnitude_offset + o)]);
      scale[o] = norm > 0 ? static_cast<float>(magnitude / norm) : 0.0f;
    }
  });
}

void PackedPairs::ScaleOutputs(int64_t layer, TrainGroup group, const uint16_t* panels,
                               const TrainKernels& kernels, ThreadPool& pool) {
  const size_t index = IndexOf(layer, group, -1);
  LoraGroup& lora = groups_[index];
  if (!dora_ || lora.r == 0 || scales_known_[index] != 0) return;
  const Place place = PlaceAt(index);
  const GroupShape& shape = place.shape;
  float* squares = base_squares_.data() + output_begin_[index];
  float* scale = output_scales_.data() + output_begin_[index];
  float* inverse = inverse_magnitudes_.data() + output_begin_[index];
  std::fill_n(scale, shape.out, 1.0f);
  std::fill_n(inverse, shape.out, 0.0f);
  for (size_t s = 0; s < static_cast<size_t>(shape.num_sites); ++s) {
    const LoraSlot* slot = layout_->Find(place.id(s));
    if (slot == nullptr) continue;
    const int64_t first = shape.out_begin[s];
    ScaleSite(*slot, panels + first * shape.in, lora.a_forward + lora.parts[s].r_begin * shape.in,
              squares + first, squares_known_[index] != 0, scale + first, kernels, pool);
    for (int64_t o = 0; o < slot->out; ++o) {
      const float magnitude = values_[static_cast<size_t>(slot->magnitude_offset + o)];
      inverse[first + o] = magnitude == 0 ? 0.0f : 1.0f / magnitude;
    }
  }
  squares_known_[index] = scales_known_[index] = 1;
  lora.output_scale = scale;
  lora.inverse_magnitude = inverse;
}

}  // namespace bakestone
