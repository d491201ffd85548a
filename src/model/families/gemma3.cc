// Gemma 3, its text half: Gemma 2 without soft-caps, with queries and keys normalized by head (those norms too
// are stored less 1), and five layers with a window and a rope of their own to one without.
#include "model/families/families.h"

namespace bakestone {
namespace {

constexpr int64_t kLayersOf27B = 62;

}  // namespace

void DescribeGemma3(const ConfigReader& in, ModelConfig& config) {
  DescribeGemma(in, kLayersOf27B, config);
  config.qk_norm = QkNorm::kPerHead;
  in.Refuse({"attn_logit_softcapping", "attn_logit_softcapping"}, "a cap of scores in this family");
  in.Refuse({"final_logit_softcapping", "final_logit_softcapping"}, "a cap of logits in this family");
  in.Refuse({nullptr, "use_bidirectional_attention"}, "attention to later tokens");
  const std::vector<bool> local = LocalLayers(in, config, 6);
  SetWindows(config, in.Size({"attention.sliding_window", "sliding_window"}, kMaxContext, 1024), local);
  for (const bool is_local : local) {
    config.layer_ropes.push_back(is_local ? LayerRope::kLocal : LayerRope::kMain);
  }
}

}  // namespace bakestone
