// The pairs under training in the form products read: rounded to bf16, as they are served, and
// packed in both orientations. With DoRA also what each output is multiplied with.
//
//   y = g (W x + s B A x),   g = 1, or with DoRA magnitude / ||W + s B A|| of the output's row
//
// The norm is a constant of the step: no gradient flows through it (Liu et al., DoRA, 2024, section
// 4.3).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "model/config.h"
#include "model/train_layout.h"
#include "model/train_weights.h"
#include "tensor/buffer.h"

namespace bakestone {

// The pairs of one group as panels. Ranks are padded to 16 with zeros, so that each begins a panel.
struct LoraGroup {
  struct Part {
    int site = 0;                          // index within the group
    int64_t rank = 0;                      // 0: not adapted
    int64_t r_begin = 0;                   // of its columns in the stacked product
    int64_t inner = 0;                     // rank as pairs of b_forward: ops::PadInner
    const uint16_t* b_forward = nullptr;   // lanes out, pairs inner
    const uint16_t* b_backward = nullptr;  // lanes r, pairs out
  };
  std::array<Part, 3> parts{};
  int64_t r = 0;                             // stacked, padded; 0: nothing adapted
  int64_t inner = 0;                         // r as pairs of a_backward
  const uint16_t* a_forward = nullptr;       // lanes r, pairs in
  const uint16_t* a_backward = nullptr;      // lanes in, pairs inner
  const float* scale = nullptr;              // [r]
  const float* output_scale = nullptr;       // [out] g; null: 1
  const float* inverse_magnitude = nullptr;  // [out], with output_scale
};

class PackedPairs {
 public:
  // No pairs at all: the base.
  explicit PackedPairs(const ModelConfig& config);

  // Takes the pairs of the layout from its flat array.
  void Pack(const TrainLayout& layout, std::span<const float> values, float scale,
            const TrainKernels& kernels, ThreadPool& pool);
  // DoRA: makes the output scales of a group from the panels of its matrices, once after each Pack.
  void ScaleOutputs(int64_t layer, TrainGroup group, const uint16_t* panels,
                    const TrainKernels& kernels, ThreadPool& pool);

  // expert: of a mixture, for gate|up and down; -1: the layer's own.
  const LoraGroup& group(int64_t layer, TrainGroup group, int64_t expert = -1) const {
    return groups_[IndexOf(layer, group, expert)];
  }
  bool dora() const noexcept { return dora_; }
  int64_t widest() const noexcept { return widest_; }  // largest stacked rank
  int64_t bytes() const noexcept;

 private:
  // A layer has its own four groups, then gate|up and down of each expert.
  size_t IndexOf(int64_t layer, TrainGroup group, int64_t expert) const {
    const int64_t of_experts = expert < 0 ? 0 : 2 + 2 * expert;
    return static_cast<size_t>(layer * groups_of_layer_ + of_experts + static_cast<int64_t>(group));
  }
  struct Place {
    int64_t layer, expert;
    GroupShape shape;
    LinearId id(size_t site) const {
      return {static_cast<int32_t>(layer), shape.sites[site], static_cast<int32_t>(expert)};
    }
  };
  Place PlaceAt(size_t index) const;
  void Plan(const TrainLayout& layout, const TrainKernels& kernels);
  void PackGroup(size_t index, float scale, const TrainKernels& kernels);
  void ScaleSite(const LoraSlot& slot, const uint16_t* panels, const uint16_t* a_lanes,
                 float* squares, bool known, float* scale, const TrainKernels& kernels,
                 ThreadPool& pool);

  const ModelConfig& config_;
  const int64_t groups_of_layer_;
  const TrainLayout* layout_ = nullptr;  // that groups_ was planned for
  std::vector<LoraGroup> groups_;
  std::vector<int64_t> panel_begin_, scale_begin_, output_begin_;
  Buffer<uint16_t> rounded_;  // pairs as the layout has them, and room for a tile of rows
  Buffer<uint16_t> panels_;
  Buffer<float> scales_;
  bool dora_ = false;
  float scale_ = 0;
  std::span<const float> values_;  // of the last Pack: magnitudes are read when they are needed
  Buffer<float> base_squares_;     // [outputs] ||W||^2
  Buffer<float> output_scales_, inverse_magnitudes_;
  std::vector<uint8_t> squares_known_, scales_known_;  // [groups]
  Buffer<float> aw_, aa_;                              // [rank, out], [rank, rank]
  int64_t widest_ = 0;
};

}  // namespace bakestone
