// Gemma 2: sandwich norms stored less 1, GeGLU, scaled embedding, soft-capped scores and logits,
// and a window on every other layer from the first on. GGUF files hold the norms plus 1 and leave
// out the query scale, which only the largest model has of its own.
#include <cmath>

#include "model/families/families.h"

namespace bakestone {
namespace {

constexpr int64_t kLayersOf27B = 46;

}  // namespace

void DescribeGemma(const ConfigReader& in, int64_t layers_of_27b, ModelConfig& config) {
  config.norm_placement = NormPlacement::kSandwich;
  config.norms_less_one = in.is_hf();
  config.mlp = MlpKind::kGeGlu;
  config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_dim));
  const double per_head =
      static_cast<double>(config.hidden_dim) / static_cast<double>(config.num_heads);
  const bool is_27b = !in.is_hf() && config.num_layers == layers_of_27b;
  const double scalar = in.Positive({nullptr, "query_pre_attn_scalar"},
                                    is_27b ? per_head : static_cast<double>(config.head_dim));
  config.attention_scale =
      static_cast<float>(in.Positive({"attention.scale", nullptr}, 1 / std::sqrt(scalar)));
}

void DescribeGemma2(const ConfigReader& in, ModelConfig& config) {
  DescribeGemma(in, kLayersOf27B, config);
  config.attention_soft_cap =
      static_cast<float>(in.Positive({"attn_logit_softcapping", "attn_logit_softcapping"}, 50));
  config.final_soft_cap =
      static_cast<float>(in.Positive({"final_logit_softcapping", "final_logit_softcapping"}, 30));
  SetWindows(config, in.Size({"attention.sliding_window", "sliding_window"}, kMaxContext, 4096),
             LocalLayers(in, config, 2));
}

}  // namespace bakestone
