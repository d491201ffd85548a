// GLM-4.5 to 4.7: Qwen-like attention (biases on q, k and v; norms of queries and keys in the
// larger ones; half of a head rotated), leading dense layers, experts chosen by sigmoid and bias,
// one that all rows share. Layers behind the last predict further tokens and are not run.
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kGlm4MoeGguf = [] {
  TensorNames names = kGgufNames;
  names.mlp_norm = "post_attention_norm";
  return names;
}();

void DescribeGlm4Moe(const ConfigReader& in, ModelConfig& config) {
  const std::string norm =
      in.is_hf() ? "model.layers.0.self_attn.q_norm.weight" : "blk.0.attn_q_norm.weight";
  if (in.HasTensor(norm)) config.qk_norm = QkNorm::kPerHead;
  config.router = {.score = RouterScore::kSigmoid, .bias = true, .groups_by_two = true};
  ReadRouter(in, config);
}

}  // namespace bakestone
