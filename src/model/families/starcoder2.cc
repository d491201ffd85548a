// StarCoder2: layer norms, biases everywhere, and an MLP without a gate.
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kStarCoder2Hf = [] {
  TensorNames names = kHfNames;
  names.sites[static_cast<size_t>(Site::kUp)] = "mlp.c_fc";
  names.sites[static_cast<size_t>(Site::kDown)] = "mlp.c_proj";
  return names;
}();

void DescribeStarCoder2(const ConfigReader& in, ModelConfig& config) {
  config.norm_kind = NormKind::kLayer;
  config.mlp = MlpKind::kGelu;
  DescribeWindow(in, config);
}

}  // namespace bakestone
