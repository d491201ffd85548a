// Phi-3 and Phi-4: one matrix for q, k and v, one for gate and up; part of a head may stay unrotated
// (Phi-4-mini). Models for long contexts have two lists of rotary factors and choose by the length of the
// sequence; here sequences are served up to the original context, with its list.
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kPhi3Gguf = [] {
  TensorNames names = kGgufNames;
  names.q_k_v = "attn_qkv";
  names.gate_up = "ffn_up";
  return names;
}();

constexpr TensorNames kPhi3Hf = [] {
  TensorNames names = kHfNames;
  names.q_k_v = "self_attn.qkv_proj";
  names.gate_up = "mlp.gate_up_proj";
  return names;
}();

void DescribePhi3(const ConfigReader& in, ModelConfig& config) {
  DescribeWindow(in, config);
}

}  // namespace bakestone
