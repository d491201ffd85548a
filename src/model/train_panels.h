// The matrices of a layer as training multiplies with them: groups that share an input (q|k|v, o,
// gate|up, down; of a mixture the last two of each expert), and those that are never trained. Their
// shapes, and where their panels lie.
#pragma once

#include <array>
#include <cstdint>

#include "model/config.h"
#include "model/linear_id.h"
#include "model/weights.h"

namespace bakestone {

enum class TrainGroup : uint8_t { kQkv, kO, kGateUp, kDown };
inline constexpr int kNumTrainGroups = 4;

// Matrices side by side: y = x W^T has `out` columns, those of sites[i] from out_begin[i] on.
struct GroupShape {
  int64_t in = 0, out = 0;
  int num_sites = 0;  // 0: the layer has none of them
  std::array<Site, 3> sites{};
  std::array<int64_t, 4> out_begin{};
};
// Of a layer's own matrices, or of an expert's.
GroupShape ShapeOf(const ModelConfig& config, int64_t layer, TrainGroup group, int64_t expert = -1);

// Matrices of a layer that are never trained.
enum class FrozenSite : uint8_t {
  kRouter,      // [experts, hidden_dim]
  kSharedGate,  // of the expert that all rows share
  kSharedUp,
  kSharedDown,
  kSharedShare,    // [1, hidden_dim], what its output counts by
  kOutputGate,     // [q_dim, hidden_dim]
  kConvolutionIn,  // ConvolutionWeights
  kConvolutionOut,
  kDeltaQkv,  // DeltaWeights
  kDeltaZ,
  kDeltaAlpha,
  kDeltaBeta,
  kDeltaOut,
  kLayerGate,  // PerLayerWeights
  kLayerOut,
  kLatentQueriesDown,  // LatentWeights: q_a, q_b, kv_a, k_b, v_b
  kLatentQueries,
  kLatentDown,
  kLatentKeys,
  kLatentValues,
};
inline constexpr int kNumFrozenSites = static_cast<int>(FrozenSite::kLatentValues) + 1;
// n 0: the layer has no such matrix.
LinearShape ShapeOf(const ModelConfig& config, int64_t layer, FrozenSite site);

// Where a layer's panels lie, in elements. What Layer() gives ends at `size`; of a mixture its
// experts' panels follow, gate|up and then down of each.
struct PanelPlan {
  std::array<int64_t, kNumTrainGroups> groups{};
  std::array<int64_t, kNumFrozenSites> frozen{};
  int64_t size = 0;
  int64_t experts = 0, expert_down = 0, expert_size = 0;
  int64_t largest = 0;  // of the groups and frozen matrices
  int64_t widest = 0;   // columns of the widest matrix
  int64_t whole() const { return size + experts * expert_size; }
};
PanelPlan PlanPanels(const ModelConfig& config, int64_t layer);
// Of a loaded layer that has it.
const Weight& FrozenWeight(const LayerWeights& layer, FrozenSite site);
// Throws kUnsupported naming a matrix whose rows or columns do not fill whole panels.
void CheckPanels(const ModelConfig& config);

}  // namespace bakestone
