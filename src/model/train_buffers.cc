#include "model/train_buffers.h"

#include <algorithm>

#include "ops/train_products.h"

namespace bakestone {
namespace {

// Rows that a product reads in whole tiles: zero beyond the last one ever written.
int64_t WholeRows(int64_t rows, int64_t width) {
  return width == 0 ? 0 : (rows + kTrainTileRows) * width;
}

}  // namespace

bool IsReadByOthers(const ModelConfig& config, int64_t layer) {
  for (int64_t reader = layer + 1; reader < config.num_layers; ++reader) {
    if (config.kv_layer(reader) == layer) return true;
  }
  return false;
}

StateWidths StateWidths::Of(const ModelConfig& config, int64_t layer) {
  switch (config.mixer(layer)) {
    case Mixer::kConvolution:
      return {.in = 3 * config.hidden_dim, .values = 0, .heads = 0};
    case Mixer::kDeltaRule:
      return {.in = config.delta.channels(),
              .values = config.delta.value_heads * config.delta.value_dim,
              .heads = config.delta.value_heads};
    default:
      return {};
  }
}

LayerWidths LayerWidths::Of(const ModelConfig& config) {
  LayerWidths widths{.mlp = config.router.shared_dim};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    widths.q = std::max(widths.q, config.q_dim(layer));
    widths.kv = std::max(widths.kv, config.kv_dim(layer));
    if (config.has_mlp(layer)) widths.mlp = std::max(widths.mlp, config.ffn_width(layer));
    if (config.has_experts(layer)) widths.mlp = std::max(widths.mlp, config.ffn_dim);
    const StateWidths state = StateWidths::Of(config, layer);
    widths.channels = std::max(widths.channels, state.in);
    widths.values =
        std::max(widths.values, state.in > 0 ? std::max(state.values, config.hidden_dim) : 0);
    if (config.output_gate) widths.values = std::max(widths.values, config.q_dim(layer));
  }
  return widths;
}

LatentWidths LatentWidths::Of(const ModelConfig& config) {
  const LatentConfig& latent = config.latent;
  if (latent.kv_rank == 0) return {};
  return {.rank = std::max(latent.kv_rank, latent.q_rank),
          .down = ops::PadRank(latent.kv_rank + latent.rope_dim),
          .up = config.num_heads * std::max(latent.key_dim(), latent.value_dim)};
}

Pieces::Plan LayerSaved::PlanFor(const ModelConfig& config, int64_t layer, int64_t rows,
                                 const PairsShape& pairs) {
  Pieces::Plan plan;
  const int64_t q_dim = config.q_dim(layer), kv_dim = config.kv_dim(layer);
  plan.Add(y_attention, WholeRows(rows, config.hidden_dim));
  plan.Add(y_mlp, WholeRows(rows, config.hidden_dim));
  const bool attends = config.mixer(layer) == Mixer::kAttention;
  const int64_t heads_width = attends ? q_dim : 0, keys_width = attends ? kv_dim : 0;
  plan.Add(q, WholeRows(rows, heads_width));
  plan.Add(k, WholeRows(rows, keys_width));
  plan.Add(v, WholeRows(rows, keys_width));
  plan.Add(attention, WholeRows(rows, heads_width));
  plan.Add(output_gate, WholeRows(rows, config.output_gate ? heads_width : 0));
  const LatentConfig& latent = config.latent;
  plan.Add(y_latent, WholeRows(rows, latent.kv_rank));
  plan.Add(y_queries, WholeRows(rows, latent.q_rank));
  plan.Add(inverse_latent, latent.kv_rank > 0 ? rows : 0);
  plan.Add(inverse_queries, latent.q_rank > 0 ? rows : 0);
  const StateWidths state = StateWidths::Of(config, layer);
  plan.Add(state_in, WholeRows(rows, state.in));
  plan.Add(state_gate, WholeRows(rows, state.values));
  plan.Add(state_y, WholeRows(rows, state.values));
  plan.Add(state_rates, rows * 2 * state.heads);
  plan.Add(state_inverse, rows * state.heads);
  const bool mixture = config.has_experts(layer);
  const int64_t mlp_rows = mixture ? rows * config.router.used : rows;
  const int64_t own_ffn = config.has_mlp(layer) ? config.ffn_width(layer) : 0;
  plan.Add(gate_up, WholeRows(rows, (config.gated() ? 2 : 1) * own_ffn));
  plan.Add(expert_gate_up, WholeRows(mlp_rows, mixture ? 2 * config.ffn_dim : 0));
  const int64_t beside = mixture && config.router.beside_mlp ? config.hidden_dim : 0;
  for (auto* part : {&y_beside_mlp, &y_beside_experts}) plan.Add(*part, WholeRows(rows, beside));
  for (auto* part : {&inverse_beside_mlp, &inverse_beside_experts}) {
    plan.Add(*part, beside > 0 ? rows : 0);
  }
  const bool told = config.per_layer_dim > 0;
  plan.Add(layer_gate, WholeRows(rows, config.per_layer_dim));
  plan.Add(y_layer, WholeRows(rows, told ? config.hidden_dim : 0));
  plan.Add(inverse_layer, told ? rows : 0);
  for (const TrainGroup group :
       {TrainGroup::kQkv, TrainGroup::kO, TrainGroup::kGateUp, TrainGroup::kDown}) {
    plan.Add(xa[static_cast<size_t>(group)],
             WholeRows(group >= TrainGroup::kGateUp ? mlp_rows : rows, pairs.widest));
  }
  plan.Add(router_logits, mixture ? rows * config.router.experts : 0);
  const int64_t shared = mixture ? config.router.shared_dim : 0;
  plan.Add(shared_gate_up, WholeRows(rows, 2 * shared));
  plan.Add(shared_shares, shared > 0 ? rows : 0);
  for (const TrainGroup group : {TrainGroup::kQkv, TrainGroup::kO, TrainGroup::kDown}) {
    const int64_t width = pairs.dora ? ShapeOf(config, layer, group).out : 0;
    plan.Add(y[static_cast<size_t>(group)], WholeRows(rows, width));
  }
  plan.Add(inverse_attention, rows);
  plan.Add(inverse_mlp, rows);
  plan.Add(log_sum, attends ? rows * config.num_heads : 0);
  if (config.has_post_norms()) {
    plan.Add(y_attention_post, WholeRows(rows, config.hidden_dim));
    plan.Add(y_mlp_post, WholeRows(rows, config.hidden_dim));
    plan.Add(inverse_attention_post, rows);
    plan.Add(inverse_mlp_post, rows);
  }
  if (attends && config.qk_norm != QkNorm::kNone) {
    plan.Add(y_q, WholeRows(rows, q_dim));
    plan.Add(y_k, WholeRows(rows, kv_dim));
    plan.Add(inverse_q, rows * config.num_heads);
    plan.Add(inverse_k, rows * config.layer_kv_heads(layer));
    plan.Add(y_v, WholeRows(rows, config.value_norm ? kv_dim : 0));
    plan.Add(inverse_v, config.value_norm ? rows * config.layer_kv_heads(layer) : 0);
  }
  return plan;
}

Pieces::Plan LayerScratch::PlanFor(const ModelConfig& config, int64_t rows) {
  Pieces::Plan plan;
  const auto [q, kv, mlp, channels, values] = LayerWidths::Of(config);
  const int64_t hidden = config.hidden_dim, qkv = q + 2 * kv;
  plan.Add(h_, WholeRows(rows, hidden));
  plan.Add(act_, WholeRows(rows, mlp));
  plan.Add(dx_bf16_, WholeRows(rows, hidden));
  plan.Add(d_act_, WholeRows(rows, mlp));
  plan.Add(d_gate_up_, WholeRows(rows, 2 * mlp));
  plan.Add(d_attention_, WholeRows(rows, q));
  plan.Add(d_qkv_bf16_, WholeRows(rows, qkv));
  plan.Add(qkv_, rows * qkv);
  plan.Add(dh_, rows * hidden);
  if (const int64_t experts = config.router.experts; experts > 0) {
    plan.Add(expert_in_, WholeRows(rows, hidden));
    plan.Add(d_expert_, WholeRows(rows, hidden));
    plan.Add(d_logits_, WholeRows(rows, ops::PadRank(experts)));
    plan.Add(expert_out_, rows * hidden);
    plan.Add(shares_, rows * experts);
    plan.Add(d_shares_, rows * experts);
    plan.Add(d_share_rows_, rows * config.router.used);
  }
  const LatentWidths latent = LatentWidths::Of(config);
  plan.Add(latent_wide_, rows * std::max({latent.rank, latent.down, latent.up}));
  plan.Add(latent_x_, rows * latent.rank);
  plan.Add(latent_d_, rows * std::max(latent.rank, config.latent.rope_dim));
  plan.Add(latent_h_, WholeRows(rows, latent.rank));
  plan.Add(latent_down_, WholeRows(rows, latent.down));
  plan.Add(latent_up_, WholeRows(rows, latent.up));
  plan.Add(d_latent_, WholeRows(rows, latent.up));
  if (!config.keys_as_values.empty()) {
    plan.Add(values_, rows * kv);
    plan.Add(d_values_, rows * kv);
  }
  if (config.router.beside_mlp) plan.Add(beside_, rows * hidden);
  plan.Add(layer_act_, WholeRows(rows, config.per_layer_dim));
  plan.Add(d_layer_, WholeRows(rows, config.per_layer_dim));
  shared_keys_.resize(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!IsReadByOthers(config, layer)) continue;
    SharedKeys& keys = shared_keys_[static_cast<size_t>(layer)];
    const int64_t width = config.kv_dim(layer);
    for (auto* part : {&keys.k, &keys.v}) plan.Add(*part, WholeRows(rows, width));
    for (auto* part : {&keys.dk, &keys.dv}) plan.Add(*part, rows * width);
  }
  if (values > 0) {
    plan.Add(convolved_, rows * channels);
    plan.Add(mixed_, rows * channels);
    plan.Add(d_mixed_, rows * channels);
    plan.Add(d_state_in_, WholeRows(rows, channels));
    plan.Add(lengths_, rows * 2 * config.delta.key_heads);
    plan.Add(state_out_, rows * values);
    plan.Add(gated_, WholeRows(rows, values));
    plan.Add(d_gated_, WholeRows(rows, values));
    plan.Add(d_z_, WholeRows(rows, values));
    plan.Add(d_alpha_, WholeRows(rows, ops::PadRank(config.delta.value_heads)));
    plan.Add(d_beta_, WholeRows(rows, ops::PadRank(config.delta.value_heads)));
  }
  if (config.has_post_norms() || config.per_layer_dim > 0) {
    plan.Add(branch_, rows * hidden);
    plan.Add(d_branch_, WholeRows(rows, hidden));
  }
  return plan;
}

}  // namespace bakestone
