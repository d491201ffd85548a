// gpt-oss: experts in every layer, with biases and a clamped SwiGLU; attention with sinks, every
// other layer with a window; YaRN. Its folders have the experts in MXFP4.
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kGptOssGguf = [] {
  TensorNames names = kGgufNames;
  names.mlp_norm = "post_attention_norm";
  return names;
}();

constexpr TensorNames kGptOssHf = [] {
  TensorNames names = kHfNames;
  names.router = "mlp.router";
  names.interleaved_gate_up = "mlp.experts.gate_up_proj";
  names.interleaved_down = "mlp.experts.down_proj";
  return names;
}();

void DescribeGptOss(const ConfigReader& in, ModelConfig& config) {
  config.mlp = MlpKind::kClampedSwiGlu;
  config.sinks = config.router.expert_biases = true;
  config.rope.truncate = false;
  ReadRouter(in, config);
  SetWindows(config, in.Size({"attention.sliding_window", "sliding_window"}, kMaxContext, 128),
             LocalLayers(in, config, 2));
  in.Expect({nullptr, "swiglu_limit"}, 7);
  in.Expect({nullptr, "swiglu_alpha"}, 1.702);
}

}  // namespace bakestone
