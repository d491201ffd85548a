// OLMo 2: norms on what attention and MLP give instead of on what they take; queries and keys are normalized
// over all heads at once.
#include "model/families/families.h"

namespace bakestone {

void DescribeOlmo2(const ConfigReader& in, ModelConfig& config) {
  in.Refuse({"attention.sliding_window", nullptr}, "OLMo 3's windows");
  config.norm_placement = NormPlacement::kPost;
  config.qk_norm = QkNorm::kWhole;
}

}  // namespace bakestone
