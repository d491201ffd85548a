// RWKV-7 ("Goose"): no attention at all, a state of fixed size by sequence. Folders are those of
// RWKV7ForCausalLM.
#include <algorithm>

#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

constexpr RwkvNames kGgufRwkv = {.receptance = "time_mix_receptance",
                                 .key = "time_mix_key",
                                 .value = "time_mix_value",
                                 .output = "time_mix_output",
                                 .decay_in = "time_mix_w1",
                                 .decay_out = "time_mix_w2",
                                 .decay_bias = "time_mix_w0",
                                 .rate_in = "time_mix_a1",
                                 .rate_out = "time_mix_a2",
                                 .rate_bias = "time_mix_a0",
                                 .value_in = "time_mix_v1",
                                 .value_out = "time_mix_v2",
                                 .value_bias = "time_mix_v0",
                                 .gate_in = "time_mix_g1",
                                 .gate_out = "time_mix_g2",
                                 .key_scale = "time_mix_k_k.weight",
                                 .key_rate = "time_mix_k_a.weight",
                                 .bonus = "time_mix_r_k.weight",
                                 .norm = "time_mix_ln",
                                 .shares = "time_mix_lerp_fused.weight",
                                 .share = {},
                                 .mlp_share = "channel_mix_lerp_k.weight"};

constexpr RwkvNames kHfRwkv = {
    .receptance = "attn.r_proj",
    .key = "attn.k_proj",
    .value = "attn.v_proj",
    .output = "attn.o_proj",
    .decay_in = "attn.w_lora.lora.0",
    .decay_out = "attn.w_lora.lora.2",
    .decay_bias = nullptr,
    .rate_in = "attn.a_lora.lora.0",
    .rate_out = "attn.a_lora.lora.2",
    .rate_bias = nullptr,
    .value_in = "attn.v_lora.lora.0",
    .value_out = "attn.v_lora.lora.2",
    .value_bias = nullptr,
    .gate_in = "attn.g_lora.lora.0",
    .gate_out = "attn.g_lora.lora.2",
    .key_scale = "attn.k_k",
    .key_rate = "attn.k_a",
    .bonus = "attn.r_k",
    .norm = "attn.g_norm",
    .shares = "attn.x_x",
    .share = {"attn.x_r", "attn.x_w", "attn.x_k", "attn.x_v", "attn.x_a", "attn.x_g"},
    .mlp_share = "ffn.x_k"};

}  // namespace

constexpr TensorNames kRwkv7Gguf = [] {
  TensorNames names = kGgufNames;
  names.mlp_norm = "attn_norm_2";
  names.sites = {
      nullptr, nullptr, nullptr, nullptr, nullptr, "channel_mix_key", "channel_mix_value"};
  names.rwkv = &kGgufRwkv;
  return names;
}();

constexpr TensorNames kRwkv7Hf = [] {
  TensorNames names = kHfNames;
  names.embedding = "model.embeddings";
  names.embedding_norm = "model.layers.0.pre_norm";
  names.attention_norm = "attn_norm";
  names.mlp_norm = "ffn_norm";
  names.sites = {nullptr, nullptr, nullptr, nullptr, nullptr, "ffn.key", "ffn.value"};
  names.rwkv = &kHfRwkv;
  return names;
}();

void DescribeRwkv7(const ConfigReader& in, ModelConfig& config) {
  const Field head = {"wkv.head_size", "head_dim"}, heads = {nullptr, "num_heads"};
  const Field width = {"feed_forward_length", "intermediate_size"};
  const int64_t usual =
      in.Number(head) || !in.Number(heads) ? 64 : config.hidden_dim / in.Size(heads, kMaxHeads);
  config.head_dim = in.Size(head, kMaxHeadDim, usual);
  if (config.hidden_dim % config.head_dim != 0 || config.head_dim % 2 != 0) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected an even divisor of the width {}, found {}",
          in.file(), in.Spelled(head), config.hidden_dim, config.head_dim);
  }
  config.num_heads = config.num_kv_heads = config.hidden_dim / config.head_dim;
  config.rwkv = {.heads = config.num_heads, .head_dim = config.head_dim};
  const double ratio = in.Positive({nullptr, "hidden_ratio"}, 4);
  const auto wide =
      static_cast<int64_t>(static_cast<double>(config.hidden_dim) * std::min(ratio, 1024.0));
  config.ffn_dim = in.Size(width, kMaxWidth, (wide + 31) / 32 * 32);
  config.norm_kind = NormKind::kLayer;
  config.mlp = MlpKind::kSquaredRelu;
  config.mixers.assign(static_cast<size_t>(config.num_layers), Mixer::kRwkv);
  config.embedding_norm = in.Flag({nullptr, "norm_first"}).value_or(true);
  in.Refuse({nullptr, "attn"}, "attention in some layers of this family");
  for (const double size : in.Numbers({nullptr, "value_dim"})) {
    if (size == static_cast<double>(config.hidden_dim)) continue;
    Throw(ErrorCode::kUnsupported, "{}: value_dim: expected the width {} in all layers, found {}",
          in.file(), config.hidden_dim, size);
  }
}

}  // namespace bakestone
