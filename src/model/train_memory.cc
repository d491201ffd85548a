#include "model/train_memory.h"

#include <algorithm>

#include "model/train_buffers.h"
#include "model/train_head.h"
#include "model/train_weights.h"

namespace bakestone {
namespace {

constexpr int64_t kBf16 = 2, kF32 = 4, kTile = 16;

int64_t PaddedTo16(int64_t n) { return (n + kTile - 1) / kTile * kTile; }

// Columns of the widest stacked x A^T.
int64_t WidestRank(const ModelConfig& config, const TrainLayout& layout) {
  int64_t widest = 0;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const auto experts =
        static_cast<int32_t>(config.has_experts(layer) ? config.router.experts : 0);
    for (int group = 0; group < kNumTrainGroups; ++group) {
      for (int32_t expert = -1; expert < experts; ++expert) {
        const GroupShape shape = ShapeOf(config, layer, static_cast<TrainGroup>(group), expert);
        int64_t rank = 0;
        for (int i = 0; i < shape.num_sites; ++i) {
          const LoraSlot* slot = layout.Find({layer, shape.sites[static_cast<size_t>(i)], expert});
          if (slot != nullptr) rank += PaddedTo16(slot->rank);
        }
        widest = std::max(widest, rank);
      }
    }
  }
  return widest;
}

int64_t ValueBytes(const TrainLayout& layout) {
  constexpr int64_t kStep = 16;  // half of what a step may add
  int64_t pairs = 0;
  for (const LoraSlot& slot : layout.slots) {
    pairs += (slot.in + slot.out) * (PaddedTo16(slot.rank) + kStep);
  }
  // Beside the four arrays of f32: the adapter as rows and as panels, and both orientations for
  // training, padded to whole steps of tiles.
  return 4 * kF32 * layout.size + 4 * kBf16 * pairs;
}

int64_t WeightBytes(const ModelConfig& config, const TrainLayout& layout, bool kl,
                    const PassOptions& options) {
  const int64_t head = 2 * PaddedTo16(config.vocab_size) * config.hidden_dim * kBf16;
  const bool keep_head = head <= options.weight_cache_bytes;
  int64_t left = options.weight_cache_bytes - (keep_head ? head : 0), kept = 0;
  int64_t current = 0, expert = 0, largest = 0, whole = 0;  // of layers that are not kept
  bool keeps = true;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const PanelPlan plan = PlanPanels(config, layer);
    largest = std::max(largest, plan.largest);
    whole = std::max(whole, plan.whole());
    keeps = keeps && left >= plan.whole() * kBf16;
    if (keeps) {
      kept += plan.whole() * kBf16;
      left -= plan.whole() * kBf16;
    } else {
      current = std::max(current, plan.size);
      expert = std::max(expert, plan.expert_size);
    }
  }
  int64_t bytes = head + kept + (current + expert + largest) * kBf16;
  if (kl && layout.full()) bytes += head + whole * kBf16;  // the base's own, made at each use
  return bytes;
}

// What the pass over a micro-batch needs beside weights and loss.
int64_t ActivationBytes(const ModelConfig& config, const TrainLayout& layout, int64_t rows,
                        const PassOptions& options) {
  const int64_t padded = rows + kTile, hidden = config.hidden_dim;
  const PairsShape pairs = {WidestRank(config, layout), layout.dora()};
  const bool recompute = options.activation == ActivationPolicy::kRecompute;
  int64_t kept = 0, largest = 0;  // largest: of those that keep nothing
  const int64_t lowest = layout.lowest_layer(config.num_layers);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const int64_t saved = LayerSaved().PlanFor(config, layer, rows, pairs).bytes();
    if (layer >= lowest) kept += recompute ? rows * hidden * kF32 : saved;
    if (layer < lowest || recompute) largest = std::max(largest, saved);
  }
  const int64_t mlp = LayerWidths::Of(config).mlp;
  const int64_t scratch = LayerScratch().PlanFor(config, rows).bytes();
  const int64_t rows_of_stream = 2 * rows * hidden * kF32;
  const int64_t told = config.num_layers * config.per_layer_dim;
  const int64_t tellings =
      told == 0 ? 0 : rows * (2 * kF32 + kBf16) * told + padded * kBf16 * hidden;
  const int64_t linear = 3 * padded * kBf16 * pairs.widest;
  const int64_t outer = layout.full() ? padded * kBf16 * (2 * mlp + std::max(mlp, hidden)) : 0;
  return kept + largest + scratch + rows_of_stream + tellings + linear + outer;
}

}  // namespace

TrainMemory EstimateTrainMemory(const ModelConfig& config, const TrainLayout& layout, int64_t rows,
                                bool kl, const PassOptions& options) {
  TrainMemory memory;
  memory.values = ValueBytes(layout);
  memory.weights = WeightBytes(config, layout, kl, options);
  memory.activations = ActivationBytes(config, layout, rows, options);
  memory.loss = TrainHead::BytesOf(config, kl, layout.head_rows().rows > 0);
  return memory;
}

}  // namespace bakestone
