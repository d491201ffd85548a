// What a layer of the training pass keeps for its backward, and what it works in.
//
// Kept per row, in bf16: both normalized inputs (before their weights), q, k, v after rotation, the
// attention's output, gate and up, and s x A^T of every pair; in f32 the norms' scales and the
// attention's log-sum-exp, the router's logits. Norm weights, rotation and activations are redone.
// 346 kB a row for SmolLM2-135M; with DoRA also the outputs of q|k|v, o and down.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/train_weights.h"
#include "tensor/buffer.h"
#include "tensor/pieces.h"

namespace bakestone {

// Whether another layer reads this one's keys and values.
bool IsReadByOthers(const ModelConfig& config, int64_t layer);

// What is done to rows by themselves is cut into pieces of so many.
inline constexpr int64_t kRowsOfAThread = 8;

// Of a layer that keeps a state: what its convolution's products give, what its heads give.
struct StateWidths {
  int64_t in = 0, values = 0, heads = 0;
  static StateWidths Of(const ModelConfig& config, int64_t layer);
};

// Of attention over a latent: the wider latent, what is made of a row before its norm, and of a
// latent for all heads.
struct LatentWidths {
  int64_t rank = 0, down = 0, up = 0;
  static LatentWidths Of(const ModelConfig& config);
};

// The widest that a layer's parts are.
struct LayerWidths {
  int64_t q = 0, kv = 0;  // of queries, of keys
  int64_t mlp = 0;        // of an MLP or of an expert
  int64_t channels = 0;   // of what a convolution's layer takes
  int64_t values = 0;     // of what a state's heads give, or gated heads
  static LayerWidths Of(const ModelConfig& config);
};

// Of pairs: columns of the widest stacked x A^T, and whether outputs are kept for magnitudes.
struct PairsShape {
  int64_t widest = 0;
  bool dora = false;
};

struct LayerSaved {
  std::span<uint16_t> y_attention,
      y_mlp;  // [T, hidden_dim] x / rms; x where a branch takes it as it is
  std::span<uint16_t> y_attention_post,
      y_mlp_post;  // [T, hidden_dim] of what the branches give, over rms
  std::span<float> inverse_attention_post, inverse_mlp_post;  // [T]
  std::span<uint16_t> q, k, v;                                // [T, heads * head_dim]
  std::span<uint16_t> attention;                              // [T, q_dim]
  std::span<uint16_t> gate_up;                                // [T, 2 * ffn_dim], or up alone
  std::span<uint16_t> expert_gate_up;  // of a mixture [T * used, 2 * ffn_dim], expert by expert
  std::span<float> router_logits;      // [T, experts], of a mixture
  std::span<uint16_t> shared_gate_up;  // [T, 2 * shared_dim], of the expert that all rows share
  std::span<float> shared_shares;      // [T], what its output counts by
  std::array<std::span<uint16_t>, kNumTrainGroups> xa;
  std::array<std::span<uint16_t>, kNumTrainGroups>
      y;  // [T, out of the group], with DoRA; not of gate|up
  std::span<float> inverse_attention, inverse_mlp;  // [T]
  std::span<uint16_t> y_q,
      y_k;  // [T, heads * head_dim] / rms, where queries and keys are normalized
  std::span<float> inverse_q, inverse_k;  // [T, heads], or [T] where all heads are one group
  std::span<uint16_t> y_v;                // the same of values
  std::span<float> inverse_v;
  std::span<float> log_sum;  // [heads, T]
  // Of experts beside an MLP: what either gives, over its rms. Of what a layer is told of the
  // token: its gate [T, per_layer_dim], and what comes of it over its rms.
  std::span<uint16_t> y_beside_mlp, y_beside_experts, layer_gate, y_layer;  // [T, hidden_dim]
  std::span<float> inverse_beside_mlp, inverse_beside_experts, inverse_layer;
  std::span<uint16_t> output_gate;  // [T, q_dim], where what heads give counts by it
  // Latents of keys and values [T, kv_rank] and of queries [T, q_rank], over their rms.
  std::span<uint16_t> y_latent, y_queries;
  std::span<float> inverse_latent, inverse_queries;
  // Of layers that keep a state: what the convolution's products gave, z [T, values], alpha and
  // beta [T, 2 * value_heads], what heads gave over its rms [T, values], 1 / rms.
  std::span<uint16_t> state_in, state_gate, state_y;
  std::span<float> state_rates, state_inverse;
  Buffer<float> input;  // [T, hidden_dim], only where the layer is recomputed

  Pieces::Plan PlanFor(const ModelConfig& config, int64_t layer, int64_t rows,
                       const PairsShape& pairs);
  // Room for `rows` of the layer; contents are lost when it grows.
  void Reserve(const ModelConfig& config, int64_t layer, int64_t rows, const PairsShape& pairs) {
    pieces.Reserve(PlanFor(config, layer, rows, pairs));
  }
  int64_t bytes() const noexcept { return pieces.bytes() + input.bytes(); }

  Pieces pieces;
};

// What a layer works in; the same for all layers.
struct LayerScratch {
  // Keys and values that other layers read too, and what these say of them.
  struct SharedKeys {
    std::span<uint16_t> k, v;
    std::span<float> dk, dv;
  };
  Pieces::Plan PlanFor(const ModelConfig& config, int64_t rows);
  void Reserve(const ModelConfig& config, int64_t rows) { pieces_.Reserve(PlanFor(config, rows)); }

  Pieces pieces_;
  std::span<float> branch_, beside_, values_;
  std::span<uint16_t> d_values_, layer_act_, d_layer_;
  // Of latents: f32 [T, down or up], [T, rank]; bf16 [T, rank], [T, down], [T, up].
  std::span<float> latent_wide_, latent_x_, latent_d_;
  std::span<uint16_t> latent_h_, latent_down_, latent_up_, d_latent_;
  std::vector<SharedKeys> shared_keys_;  // by layer; empty: no other reads them
  std::span<uint16_t> d_branch_;
  std::span<uint16_t> h_, act_, dx_bf16_, d_act_, d_gate_up_, d_attention_, d_qkv_bf16_;
  std::span<float> qkv_, dh_;
  std::span<uint16_t> expert_in_, d_expert_, d_logits_;  // of a mixture
  std::span<float> expert_out_, shares_, d_shares_, d_share_rows_;
  // Of states, and of gated heads; channels: of the convolution.
  std::span<float> convolved_, mixed_, d_mixed_;  // [T, channels]
  std::span<float> lengths_, state_out_;          // [T, 2 * key_heads], [T, values]
  std::span<uint16_t> gated_, d_gated_, d_z_;     // [T, values]
  std::span<uint16_t> d_state_in_, d_alpha_, d_beta_;
};

}  // namespace bakestone
