// How a format, or a family in it, names a model's tensors: data for whoever reads or writes them.
// Names are without ".weight" and ".bias"; those of a layer follow the layer's prefix. Where a
// family lacks a tensor (norms after a branch, a gate), its name is not asked for.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "model/linear_id.h"

namespace bakestone {

// Of RWKV-7's layers. Without a suffix: matrices, and the norm; biases, which are null where they
// are with the matrix, have their own ".weight". With their suffix: the rest; shares together, or
// each by itself.
struct RwkvNames {
  const char *receptance, *key, *value, *output;
  const char *decay_in, *decay_out, *decay_bias, *rate_in, *rate_out, *rate_bias;
  const char *value_in, *value_out, *value_bias, *gate_in, *gate_out;
  const char *key_scale, *key_rate, *bonus, *norm;
  const char* shares;
  std::array<const char*, 6> share;
  const char* mlp_share;
};

struct TensorNames {
  const char* embedding = "token_embd";
  const char* final_norm = "output_norm";
  const char *positions = "position_embd", *token_types = "token_types",
             *embedding_norm = "token_embd_norm";  // encoders'
  const char* head = "output";
  const char* layers = "blk.";  // then the layer's number and a dot
  const char* attention_norm = "attn_norm";
  const char* attention_post_norm = "post_attention_norm";
  const char* mlp_norm = "ffn_norm";
  const char* mlp_post_norm = "post_ffw_norm";
  const char* q_norm = "attn_q_norm";
  const char* k_norm = "attn_k_norm";
  std::array<const char*, kNumSites> sites = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                              "ffn_gate", "ffn_up", "ffn_down"};
  // Matrices whose rows are those of several sites one after the other; null: each by itself.
  const char* q_k_v = nullptr;
  const char* gate_up = nullptr;
  // Of a mixture of experts: the router, and gate, up and down of all experts stacked [experts, n,
  // k] ...
  const char* router = "ffn_gate_inp";
  std::array<const char*, 3> stacked = {"ffn_gate_exps.weight", "ffn_up_exps.weight",
                                        "ffn_down_exps.weight"};
  // ... or gate and up in one [experts, 2 n, k] (null: never), or each expert by itself, its number
  // after `experts`.
  const char* stacked_gate_up = nullptr;
  const char* experts = nullptr;
  std::array<const char*, 3> of_expert = {"gate_proj", "up_proj", "down_proj"};
  // ... or gate and up row by row, with names to which _blocks, _scales (MXFP4) and _bias are
  // added, or [experts, k, n] as they are (null: never).
  const char *interleaved_gate_up = nullptr, *interleaved_down = nullptr;

  // Of layers that keep a state; taps, dt, decay and norm with their suffix.
  const char *convolution_in = "shortconv.in_proj", *convolution_out = "shortconv.out_proj";
  const char* convolution = "shortconv.conv";
  const char *delta_qkv = "attn_qkv", *delta_z = "attn_gate", *delta_alpha = "ssm_alpha",
             *delta_beta = "ssm_beta";
  const char *delta_out = "ssm_out", *delta_taps = "ssm_conv1d.weight", *delta_dt = "ssm_dt.bias";
  const char *delta_decay = "ssm_a", *delta_norm = "ssm_norm.weight";
  bool logarithmic_decay = false;  // a file's decay is the logarithm of what the rule takes
  // Of experts beside an MLP; the last two with their suffix. Of embeddings by layer, and a layer's
  // scale with its suffix.
  const char *beside_mlp_norm = "post_ffw_norm_1", *beside_experts_norm = "pre_ffw_norm_2";
  const char* beside_experts_post_norm = "post_ffw_norm_2";
  const char *router_scale = "ffn_gate_inp.scale", *expert_scales = "ffn_down_exps.scale";
  const char *per_layer_embedding = "per_layer_token_embd",
             *per_layer_projection = "per_layer_model_proj";
  const char* per_layer_norm = "per_layer_proj_norm";
  const char *layer_gate = "inp_gate", *layer_out = "proj", *layer_norm = "post_norm";
  const char* layer_scale = "layer_output_scale.weight";
  const RwkvNames* rwkv = nullptr;
  const char* sinks = "attn_sinks.weight";       // with its suffix
  const char* router_bias = "exp_probs_b.bias";  // with its suffix
  std::array<const char*, 3> shared = {"ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"};
  const char* shared_gate = "ffn_gate_inp_shexp";
  // Of attention over a latent; keys and values in one matrix, or in two (null: never).
  const char *q_a = "attn_q_a", *q_a_norm = "attn_q_a_norm", *q_b = "attn_q_b";
  const char *kv_a = "attn_kv_a_mqa", *kv_a_norm = "attn_kv_a_norm", *kv_b = "attn_kv_b";
  const char *k_b = "attn_k_b", *v_b = "attn_v_b";

  std::string Layer(int64_t layer, const char* tensor) const {
    return layers + std::to_string(layer) + "." + tensor;
  }
};

inline constexpr TensorNames kGgufNames{};

inline constexpr TensorNames kHfNames = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .head = "lm_head",
    .layers = "model.layers.",
    .attention_norm = "input_layernorm",
    .attention_post_norm =
        "post_attention_layernorm",  // of families that have norms after their branches
    .mlp_norm = "post_attention_layernorm",
    .mlp_post_norm = "post_feedforward_layernorm",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .sites = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
              "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"},
    .router = "mlp.gate",
    .stacked = {nullptr, nullptr, "mlp.experts.down_proj"},
    .stacked_gate_up = "mlp.experts.gate_up_proj",
    .experts = "mlp.experts.",
    .convolution_in = "conv.in_proj",
    .convolution_out = "conv.out_proj",
    .convolution = "conv.conv",
    .delta_qkv = "linear_attn.in_proj_qkv",
    .delta_z = "linear_attn.in_proj_z",
    .delta_alpha = "linear_attn.in_proj_a",
    .delta_beta = "linear_attn.in_proj_b",
    .delta_out = "linear_attn.out_proj",
    .delta_taps = "linear_attn.conv1d.weight",
    .delta_dt = "linear_attn.dt_bias",
    .delta_decay = "linear_attn.A_log",
    .delta_norm = "linear_attn.norm.weight",
    .logarithmic_decay = true,
    .beside_mlp_norm = "post_feedforward_layernorm_1",
    .beside_experts_norm = "pre_feedforward_layernorm_2",
    .beside_experts_post_norm = "post_feedforward_layernorm_2",
    .router_scale = "router.scale",
    .expert_scales = "router.per_expert_scale",
    .per_layer_embedding = "model.embed_tokens_per_layer",
    .per_layer_projection = "model.per_layer_model_projection",
    .per_layer_norm = "model.per_layer_projection_norm",
    .layer_gate = "per_layer_input_gate",
    .layer_out = "per_layer_projection",
    .layer_norm = "post_per_layer_input_norm",
    .layer_scale = "layer_scalar",
    .sinks = "self_attn.sinks",
    .router_bias = "mlp.gate.e_score_correction_bias",
    .shared = {"mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj",
               "mlp.shared_experts.down_proj"},
    .shared_gate = "mlp.shared_expert_gate",
    .q_a = "self_attn.q_a_proj",
    .q_a_norm = "self_attn.q_a_layernorm",
    .q_b = "self_attn.q_b_proj",
    .kv_a = "self_attn.kv_a_proj_with_mqa",
    .kv_a_norm = "self_attn.kv_a_layernorm",
    .kv_b = "self_attn.kv_b_proj",
    .k_b = nullptr,
    .v_b = nullptr};

// Of those with norms before and after both branches.
inline constexpr TensorNames kHfSandwichNames = [] {
  TensorNames names = kHfNames;
  names.mlp_norm = "pre_feedforward_layernorm";
  return names;
}();

}  // namespace bakestone
