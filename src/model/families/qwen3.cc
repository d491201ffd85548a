// Qwen3: no biases; queries and keys are normalized by head before they are rotated.
#include "model/families/families.h"

namespace bakestone {

void DescribeQwen3(const ConfigReader& in, ModelConfig& config) {
  DescribeQwen2(in, config);
  config.qk_norm = QkNorm::kPerHead;
}

}  // namespace bakestone
