#include "model/train_memory.h"

#include <algorithm>

#include "model/train_head.h"
#include "model/train_weights.h"

namespace bakestone {
namespace {

constexpr int64_t kBf16 = 2, kF32 = 4, kTile = 16;

int64_t PaddedTo16(int64_t n) { return (n + kTile - 1) / kTile * kTile; }

// Of one group; of a mixture one expert's.
int64_t GroupParameters(const ModelConfig& config, TrainGroup group) {
  const GroupShape shape = ShapeOf(config, group);
  return shape.in * shape.out;
}

int64_t ExpertParameters(const ModelConfig& config) {
  return GroupParameters(config, TrainGroup::kGateUp) + GroupParameters(config, TrainGroup::kDown);
}

int64_t LayerParameters(const ModelConfig& config) {
  const int64_t attention =
      GroupParameters(config, TrainGroup::kQkv) + GroupParameters(config, TrainGroup::kO);
  return attention + std::max<int64_t>(config.router.experts, 1) * ExpertParameters(config) +
         (PaddedTo16(config.router.experts) + 3 * config.router.shared_dim +
          (config.router.shared_gate ? kTile : 0)) *
             config.hidden_dim;
}

int64_t LargestGroup(const ModelConfig& config) {
  int64_t largest = 0;
  for (int group = 0; group < kNumTrainGroups; ++group) {
    const GroupShape shape = ShapeOf(config, static_cast<TrainGroup>(group));
    largest = std::max(largest, shape.in * shape.out);
  }
  return largest;
}

// Columns of the widest stacked x A^T.
int64_t WidestRank(const ModelConfig& config, const TrainLayout& layout) {
  int64_t widest = 0;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int group = 0; group < kNumTrainGroups; ++group) {
      const GroupShape shape = ShapeOf(config, static_cast<TrainGroup>(group));
      for (int32_t expert = -1; expert < config.router.experts; ++expert) {
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
  const int64_t layer = LayerParameters(config) * kBf16;
  const bool keep_head = head <= options.weight_cache_bytes;
  const int64_t left = options.weight_cache_bytes - (keep_head ? head : 0);
  const int64_t kept = std::clamp<int64_t>(left / layer, 0, config.num_layers);
  const int64_t current = config.router.experts > 0 ? layer - (config.router.experts - 1) *
                                                                  ExpertParameters(config) * kBf16
                                                    : layer;
  int64_t bytes =
      head + kept * layer + (kept < config.num_layers ? current : 0) + LargestGroup(config) * kBf16;
  if (kl && layout.full()) bytes += head + layer;  // the base's own, made at each use
  return bytes;
}

int64_t ActivationBytes(const ModelConfig& config, const TrainLayout& layout, int64_t rows,
                        const PassOptions& options) {
  const int64_t padded = rows + 16, hidden = config.hidden_dim, q = config.q_dim(),
                kv = config.kv_dim();
  const int64_t qkv = q + 2 * kv, rank = WidestRank(config, layout);
  const int64_t used = std::max<int64_t>(config.router.used, 1),
                experts = config.router.experts;  // rows of an MLP
  int64_t saved =
      padded * kBf16 *
          (2 * hidden + 2 * q + 2 * kv + used * (2 * config.ffn_dim + 2 * rank) + 2 * rank) +
      rows * kF32 * (2 + config.num_heads + experts) +
      2 * config.router.shared_dim * padded * kBf16;
  if (config.has_post_norms()) saved += padded * kBf16 * 2 * hidden;
  if (config.qk_norm != QkNorm::kNone) {
    saved += padded * kBf16 * (q + kv) + rows * kF32 * (config.num_heads + config.num_kv_heads);
  }
  if (layout.dora()) saved += padded * kBf16 * (qkv + 2 * hidden);
  if (config.has_post_norms()) saved += padded * kBf16 * 2 * hidden + rows * kF32 * 2;
  if (config.qk_norm != QkNorm::kNone) {
    saved += padded * kBf16 * (q + kv) + rows * kF32 * (config.num_heads + config.num_kv_heads);
  }
  const bool recompute = options.activation == ActivationPolicy::kRecompute;
  const int64_t layers = config.num_layers - layout.lowest_layer(config.num_layers);
  const int64_t kept = recompute ? layers * rows * hidden * kF32 + saved : layers * saved;
  const int64_t mixture =
      experts == 0 ? 0
                   : padded * kBf16 * (2 * hidden + PaddedTo16(experts)) +
                         rows * kF32 * (hidden + 2 * experts + used) +
                         (PaddedTo16(experts) + 2 * config.router.shared_dim) * hidden * kBf16;
  const int64_t branch = mixture + (config.has_post_norms() ? padded * hidden * (kF32 + kBf16) : 0);
  const int64_t scratch =
      branch +
      padded * kBf16 *
          (2 * hidden + 4 * std::max(config.ffn_dim, config.router.shared_dim) + q + qkv) +
      rows * kF32 * (qkv + hidden) + 2 * rows * hidden * kF32 + 3 * padded * kBf16 * rank;
  const int64_t outer =
      layout.full() ? padded * kBf16 * (2 * config.ffn_dim + std::max(config.ffn_dim, hidden)) : 0;
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
