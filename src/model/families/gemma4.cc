// Gemma 4, its text half: Gemma 3's sandwich norms (stored as they are), windows and two ropes,
// with values normalized and scores not scaled; layers without a window have heads of another size,
// of which a part is rotated, and in the larger models no values but the keys; the last layers of
// the smaller ones read the keys and values of the last layer of their kind before them, and all
// are told of the token once more. 26B-A4B has experts beside its MLPs.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "base/quote.h"
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kGemma4Gguf = [] {
  TensorNames names = kGgufNames;
  names.stacked_gate_up = "ffn_gate_up_exps.weight";
  return names;
}();

constexpr TensorNames kGemma4Hf = [] {
  TensorNames names = kHfSandwichNames;
  names.router = "router.proj";
  names.stacked = {nullptr, nullptr, "experts.down_proj"};
  names.stacked_gate_up = "experts.gate_up_proj";
  names.experts = nullptr;
  return names;
}();

namespace {

// Of each layer; config.json says it of layers without a window as a whole, or of single layers.
void ReadLayerHeads(const ConfigReader& in, const std::vector<bool>& local, ModelConfig& config) {
  const Field local_size = {"attention.key_length_swa", "head_dim"},
              value_size = {"attention.value_length_swa", nullptr};
  const int64_t local_dim = in.Size(local_size, kMaxHeadDim, in.is_hf() ? 256 : config.head_dim);
  const int64_t global_dim =
      in.is_hf() ? in.Size({nullptr, "global_head_dim"}, kMaxHeadDim, 512) : config.head_dim;
  if (in.Size(value_size, kMaxHeadDim, local_dim) != local_dim) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected the key length {}, found another", in.file(),
          in.Spelled(value_size), local_dim);
  }
  const bool same = in.Flag({nullptr, "attention_k_eq_v"}).value_or(false);
  const int64_t global_kv =
      same ? in.Size({nullptr, "num_global_key_value_heads"}, kMaxHeads, config.num_kv_heads)
           : config.num_kv_heads;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool is_local = local[static_cast<size_t>(layer)];
    int64_t dim = is_local ? local_dim : global_dim,
            kv = is_local ? config.num_kv_heads : global_kv;
    if (in.HasLayerConfig()) {
      dim = local_dim;
      kv = config.num_kv_heads;
    }
    for (const auto& [name, value] : in.OfLayer(layer)) {
      if ((name != "head_dim" && name != "num_key_value_heads") ||
          !(value >= 1 && value <= kMaxHeads)) {
        Throw(ErrorCode::kUnsupported,
              "{}: per_layer_config.{}: expected head_dim or num_key_value_heads, found {} {}",
              in.file(), layer, Quote(name), value);
      }
      (name == "head_dim" ? dim : kv) = static_cast<int64_t>(value);
    }
    if (dim % 2 != 0 || dim > kMaxHeadDim || config.num_heads % kv != 0) {
      Throw(ErrorCode::kCorrupt,
            "{}: layer {}: expected heads of an even size up to {} and a divisor of {} of keys, "
            "found {} and {}",
            in.file(), layer, kMaxHeadDim, config.num_heads, dim, kv);
    }
    config.head_dims.push_back(dim);
    if (in.is_hf()) config.kv_head_counts.push_back(kv);
  }
}

// Layers of one kind are alike: each kind has one rotary table.
void CheckKinds(const ConfigReader& in, const std::vector<bool>& local, ModelConfig& config) {
  std::array<int64_t, 2> first = {-1, -1};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    int64_t& known = first[local[static_cast<size_t>(layer)] ? 1 : 0];
    if (known < 0) known = layer;
    if (config.layer_head_dim(layer) == config.layer_head_dim(known)) continue;
    Throw(ErrorCode::kUnsupported,
          "{}: heads of layer {}: expected {} channels as in layer {} of the same kind, found {}",
          in.file(), layer, config.layer_head_dim(known), known, config.layer_head_dim(layer));
  }
  const int64_t global = std::max<int64_t>(first[0], 0);
  config.head_dim = config.layer_head_dim(global);
  config.num_kv_heads = config.layer_kv_heads(global);
  for (auto* by_layer : {&config.head_dims, &config.kv_head_counts}) {
    const bool same = std::adjacent_find(by_layer->begin(), by_layer->end(),
                                         std::not_equal_to<>()) == by_layer->end();
    if (same) by_layer->clear();
  }
}

void ReadSharing(const ConfigReader& in, const std::vector<bool>& local, ModelConfig& config) {
  const Field field = {"attention.shared_kv_layers", "num_kv_shared_layers"};
  if (in.Number(field).value_or(0) == 0) return;
  const int64_t first = config.num_layers - in.Size(field, config.num_layers - 1);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto is_local = [&](int64_t at) { return local[static_cast<size_t>(at)]; };
    int64_t owner = std::min(layer, first - 1);
    while (owner >= 0 && is_local(owner) != is_local(layer)) --owner;
    if (owner < 0) {
      Throw(ErrorCode::kCorrupt,
            "{}: {}: expected a layer {} a window before layer {}, to read the keys and values of, "
            "found none",
            in.file(), in.Spelled(field), is_local(layer) ? "with" : "without", first);
    }
    config.kv_layers.push_back(owner);
  }
  if (!in.Flag({nullptr, "use_double_wide_mlp"}).value_or(false)) return;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    config.ffn_dims.push_back(config.ffn_dim * (layer < first ? 1 : 2));
  }
}

void ReadExperts(const ConfigReader& in, ModelConfig& config) {
  if (in.is_hf() && !in.Flag({nullptr, "enable_moe_block"}).value_or(false)) return;
  const Field experts = {"expert_count", "num_experts"};
  if (!in.is_hf() && in.Number(experts).value_or(0) == 0) return;
  if (!config.ffn_dims.empty()) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected none in a model with MLPs of several widths",
          in.file(), in.Spelled(experts));
  }
  RouterConfig& router = config.router;
  router.experts = in.Size(experts, kMaxExperts);
  router.used = in.Size({"expert_used_count", "top_k_experts"}, router.experts);
  router.beside_mlp = true;
  router.dense_dim = config.ffn_dim;
  config.ffn_dim = in.Size({"expert_feed_forward_length", "moe_intermediate_size"}, kMaxWidth);
}

}  // namespace

void DescribeGemma4(const ConfigReader& in, ModelConfig& config) {
  config.norm_placement = NormPlacement::kSandwich;
  config.mlp = MlpKind::kGeGlu;
  config.qk_norm = QkNorm::kPerHead;
  config.value_norm = config.layer_scales = true;
  config.attention_scale = 1;
  config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_dim));
  const Field cap = {"final_logit_softcapping", "final_logit_softcapping"};
  if (in.Number(cap).value_or(in.is_hf() ? 0 : 30) != 0) {
    config.final_soft_cap = static_cast<float>(in.Positive(cap, 30));
  }
  if (in.Text({nullptr, "use_bidirectional_attention"}).value_or("") == "all") {
    Throw(ErrorCode::kUnsupported,
          "{}: use_bidirectional_attention: expected null or \"vision\", found \"all\": attention "
          "to later tokens is not supported in this family",
          in.file());
  }
  const std::vector<bool> local = LocalLayers(in, config, 6);
  SetWindows(config, in.Size({"attention.sliding_window", "sliding_window"}, kMaxContext, 512),
             local);
  for (const bool is_local : local) {
    config.layer_ropes.push_back(is_local ? LayerRope::kLocal : LayerRope::kMain);
  }
  ReadLayerHeads(in, local, config);
  CheckKinds(in, local, config);
  ReadSharing(in, local, config);
  const bool same = in.Flag({nullptr, "attention_k_eq_v"}).value_or(false);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool none = in.is_hf() ? same && !local[static_cast<size_t>(layer)]
                                 : !in.HasTensor(kGemma4Gguf.Layer(layer, "attn_v.weight"));
    config.keys_as_values.push_back(none && config.owns_kv(layer));
  }
  if (std::find(config.keys_as_values.begin(), config.keys_as_values.end(), true) ==
      config.keys_as_values.end()) {
    config.keys_as_values.clear();
  }
  const Field told = {"embedding_length_per_layer_input", "hidden_size_per_layer_input"};
  const double usual = in.HasTensor("model.embed_tokens_per_layer.weight") ? 256 : 0;
  if (in.Number(told).value_or(usual) != 0) config.per_layer_dim = in.Size(told, kMaxWidth, 256);
  ReadExperts(in, config);
}

}  // namespace bakestone
