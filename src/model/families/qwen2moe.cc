// Qwen1.5-MoE and Qwen2's mixtures of experts: Qwen2 with experts in every layer and one that all
// rows share, which counts by a gate.
#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kQwen2MoeHf = [] {
  TensorNames names = kHfNames;
  names.shared = {"mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj",
                  "mlp.shared_expert.down_proj"};
  return names;
}();

void DescribeQwen2Moe(const ConfigReader& in, ModelConfig& config) {
  DescribeQwen2(in, config);
  config.router.renormalize = false;
  config.router.shared_gate = true;
  RequireExpertsEverywhere(in);
  ReadRouter(in, config);
}

}  // namespace bakestone
