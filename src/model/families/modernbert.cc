// ModernBERT: an encoder with norms before its branches (none before the first attention), rotated
// queries and keys, GeGLU by erf, and a window to both sides in all but every third layer, where
// the rope has a base of its own.
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kModernBertGguf = [] {
  TensorNames names = kGgufNames;
  names.q_k_v = "attn_qkv";
  names.gate_up = "ffn_up";
  return names;
}();

constexpr TensorNames kModernBertHf = [] {
  TensorNames names = kHfNames;
  names.embedding = "model.embeddings.tok_embeddings";
  names.embedding_norm = "model.embeddings.norm";
  names.final_norm = "model.final_norm";
  names.attention_norm = "attn_norm";
  names.mlp_norm = "mlp_norm";
  names.sites = {"attn.Wq", "attn.Wk", "attn.Wv", "attn.Wo", "mlp.Wi_gate", "mlp.Wi_up", "mlp.Wo"};
  names.q_k_v = "attn.Wqkv";
  names.gate_up = "mlp.Wi";
  return names;
}();

void DescribeModernBert(const ConfigReader& in, ModelConfig& config) {
  config.norm_kind = NormKind::kLayer;
  config.mlp = MlpKind::kErfGeGlu;
  config.encoder = {.both_ways = true, .embedding_norm = true, .bare_first = true};
  ReadPooling(in, config);
  ReadClassifier(in, config);
  config.rope.theta = 160000;
  const Field period = {"attention.sliding_window_pattern", "global_attn_every_n_layers"};
  std::vector<bool> local;
  if (in.Texts({nullptr, "layer_types"}).empty() && in.Numbers({period.gguf, nullptr}).empty()) {
    const int64_t every = in.Size(period, kMaxLayers, 3);
    for (int64_t layer = 0; layer < config.num_layers; ++layer) local.push_back(layer % every != 0);
  } else {
    local = LocalLayers(in, config, 0);
  }
  const int64_t window = in.Size({"attention.sliding_window", "local_attention"}, kMaxContext, 128);
  SetWindows(config, window / 2 * 2 + 1, local);
  for (const bool is_local : local) {
    config.layer_ropes.push_back(is_local ? LayerRope::kLocal : LayerRope::kMain);
  }
}

}  // namespace bakestone
