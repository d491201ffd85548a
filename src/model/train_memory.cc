#include "model/train_memory.h"

#include <algorithm>

#include "model/train_head.h"
#include "model/train_layer.h"
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

// What LayerSaved keeps of a layer.
int64_t SavedBytes(const ModelConfig& config, const TrainLayout& layout, int64_t layer,
                   int64_t rows, int64_t rank) {
  const bool attends = config.mixer(layer) == Mixer::kAttention;
  const int64_t padded = rows + 16, hidden = config.hidden_dim,
                q = attends ? config.q_dim(layer) : 0, kv = attends ? config.kv_dim(layer) : 0;
  const StateWidths state = StateWidths::Of(config, layer);
  const bool mixture = config.has_experts(layer);
  const int64_t used = mixture ? config.router.used : 1;  // rows of an MLP
  const int64_t ffn = mixture ? config.ffn_dim : config.ffn_width(layer);
  int64_t bytes =
      padded * kBf16 * (2 * hidden + 2 * q + 2 * kv + used * (2 * ffn + 2 * rank) + 2 * rank) +
      rows * kF32 * (2 + (attends ? config.num_heads : 0));
  bytes += padded * kBf16 * (state.in + 2 * state.values + (config.output_gate ? q : 0)) +
           3 * rows * kF32 * state.heads;
  if (mixture) {
    bytes += rows * kF32 * config.router.experts + 2 * config.router.shared_dim * padded * kBf16;
  }
  if (layout.dora()) bytes += padded * kBf16 * (q + 2 * kv + 2 * hidden);
  if (config.has_post_norms()) bytes += padded * kBf16 * 2 * hidden + rows * kF32 * 2;
  if (attends && config.qk_norm != QkNorm::kNone) {
    bytes +=
        padded * kBf16 * (q + kv) + rows * kF32 * (config.num_heads + config.layer_kv_heads(layer));
  }
  return bytes;
}

int64_t ActivationBytes(const ModelConfig& config, const TrainLayout& layout, int64_t rows,
                        const PassOptions& options) {
  const auto [q, kv, mlp, channels, values] = LayerWidths::Of(config);
  const int64_t padded = rows + 16, hidden = config.hidden_dim, qkv = q + 2 * kv,
                rank = WidestRank(config, layout), experts = config.router.experts;
  const bool recompute = options.activation == ActivationPolicy::kRecompute;
  int64_t kept = 0, largest = 0;
  for (int64_t layer = layout.lowest_layer(config.num_layers); layer < config.num_layers; ++layer) {
    const int64_t saved = SavedBytes(config, layout, layer, rows, rank);
    kept += recompute ? rows * hidden * kF32 : saved;
    largest = std::max(largest, saved);
  }
  if (recompute) kept += largest;
  const int64_t mixture = experts == 0
                              ? 0
                              : padded * kBf16 * (2 * hidden + PaddedTo16(experts)) +
                                    rows * kF32 * (hidden + 2 * experts + config.router.used);
  const int64_t branch = mixture + (config.has_post_norms() ? padded * hidden * (kF32 + kBf16) : 0);
  const int64_t states =
      padded * (kF32 * (3 * channels + values) + kBf16 * (channels + 3 * values));
  const int64_t scratch = branch + states + padded * kBf16 * (2 * hidden + 4 * mlp + q + qkv) +
                          rows * kF32 * (qkv + hidden) + 2 * rows * hidden * kF32 +
                          3 * padded * kBf16 * rank;
  const int64_t outer = layout.full() ? padded * kBf16 * (2 * mlp + std::max(mlp, hidden)) : 0;
  return kept + scratch + outer;
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
