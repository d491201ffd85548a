// The first Gemma: a Llama with norms stored less 1, GeGLU and a scaled embedding.
#include "model/families/families.h"

namespace bakestone {

void DescribeGemma1(const ConfigReader& in, ModelConfig& config) {
  DescribeGemma(in, /*layers_of_27b=*/0, config);
  config.norm_placement = NormPlacement::kPre;
  config.attention_scale = 0;
}

}  // namespace bakestone
