// Phi-3 and Phi-4: one matrix for q, k and v, one for gate and up; part of a head may stay
// unrotated (Phi-4-mini). Models for long contexts have two lists of rotary factors; which is used
// is decided once for a sequence, by the tokens that it may come to (ModelConfig::far).
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

void DescribePhi3(const ConfigReader& in, ModelConfig& config) { DescribeWindow(in, config); }

}  // namespace bakestone
