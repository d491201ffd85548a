// Granite 3: a Llama with factors on the embedding, on the scores, on what every branch adds, and a
// divisor of the logits.
#include "model/families/families.h"

namespace bakestone {

void DescribeGranite(const ConfigReader& in, ModelConfig& config) {
  config.embedding_scale =
      static_cast<float>(in.Positive({"embedding_scale", "embedding_multiplier"}, 12));
  config.residual_scale =
      static_cast<float>(in.Positive({"residual_scale", "residual_multiplier"}, 0.22));
  config.attention_scale =
      static_cast<float>(in.Positive({"attention.scale", "attention_multiplier"}, 0.015625));
  config.logit_scale = static_cast<float>(1 / in.Positive({"logit_scale", "logits_scaling"}, 8));
}

}  // namespace bakestone
