// Qwen3.5 and 3.6 (text): the gated delta rule in three of four layers, attention whose output is
// gated in the fourth, a quarter of a head rotated; the larger ones with experts, one of which all
// rows share by a gate.
#include "base/error.h"
#include "base/quote.h"
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kQwen35Gguf = [] {
  TensorNames names = kGgufNames;
  names.mlp_norm = "post_attention_norm";
  return names;
}();

constexpr TensorNames kQwen35Hf = [] {
  TensorNames names = kHfNames;
  names.shared = {"mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj",
                  "mlp.shared_expert.down_proj"};
  return names;
}();

void DescribeQwen35(const ConfigReader& in, ModelConfig& config) {
  config.qk_norm = QkNorm::kPerHead;
  config.output_gate = true;
  config.norms_less_one = in.is_hf();
  config.taps = in.Size({"ssm.conv_kernel", "linear_conv_kernel_dim"}, 64, 4);
  DeltaConfig& delta = config.delta;
  delta.key_heads = in.Size({"ssm.group_count", "linear_num_key_heads"}, kMaxHeads, 16);
  delta.value_heads = in.Size({"ssm.time_step_rank", "linear_num_value_heads"}, kMaxHeads, 32);
  delta.key_dim = in.Size({"ssm.state_size", "linear_key_head_dim"}, kMaxHeadDim, 128);
  delta.value_dim = in.Size({nullptr, "linear_value_head_dim"}, kMaxHeadDim, delta.key_dim);
  if (!in.is_hf()) {
    const Field inner = {"ssm.inner_size", nullptr};
    delta.value_dim =
        in.Size(inner, kMaxWidth, delta.value_heads * delta.key_dim) / delta.value_heads;
    delta.tiled = true;
  }
  if (delta.value_heads % delta.key_heads != 0 || delta.value_dim < 1) {
    Throw(
        ErrorCode::kCorrupt,
        "{}: heads of the delta rule: expected a multiple of the {} heads of keys, found {} of {}",
        in.file(), delta.key_heads, delta.value_heads, delta.value_dim);
  }
  const std::vector<std::string> types = in.Texts({nullptr, "layer_types"});
  const int64_t period =
      in.Size({"full_attention_interval", "full_attention_interval"}, kMaxLayers, 4);
  if (!types.empty() && types.size() != static_cast<size_t>(config.num_layers)) {
    Throw(ErrorCode::kCorrupt, "{}: layer_types: expected {} names, found {}", in.file(),
          config.num_layers, types.size());
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool attends = types.empty() ? (layer + 1) % period == 0
                                       : types[static_cast<size_t>(layer)] == "full_attention";
    if (!types.empty() && !attends && types[static_cast<size_t>(layer)] != "linear_attention") {
      Throw(ErrorCode::kUnsupported,
            "{}: layer_types[{}]: expected linear_attention or full_attention, found {}", in.file(),
            layer, Quote(types[static_cast<size_t>(layer)]));
    }
    config.mixers.push_back(attends ? Mixer::kAttention : Mixer::kDeltaRule);
  }
  RequireAttention(in, config);
}

void DescribeQwen35Moe(const ConfigReader& in, ModelConfig& config) {
  DescribeQwen35(in, config);
  config.router.shared_gate = true;
  ReadRouter(in, config);
}

}  // namespace bakestone
