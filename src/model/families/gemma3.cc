// Gemma 3, its text half: Gemma 2 without soft-caps, with queries and keys normalized by head
// (those norms too are stored less 1), and five layers with a window and a rope of their own to one
// without. EmbeddingGemma is an encoder of this kind: its rows see the text to both sides, windows
// half to each.
#include "model/families/families.h"

namespace bakestone {
namespace {

constexpr int64_t kLayersOf27B = 62;

void DescribeLayers(const ConfigReader& in, int64_t window, ModelConfig& config) {
  const std::vector<bool> local = LocalLayers(in, config, 6);
  SetWindows(config, window, local);
  for (const bool is_local : local) {
    config.layer_ropes.push_back(is_local ? LayerRope::kLocal : LayerRope::kMain);
  }
}

void DescribeCommon(const ConfigReader& in, int64_t layers_of_27b, ModelConfig& config) {
  DescribeGemma(in, layers_of_27b, config);
  config.qk_norm = QkNorm::kPerHead;
  in.Refuse({"attn_logit_softcapping", "attn_logit_softcapping"}, "a cap of scores in this family");
  in.Refuse({"final_logit_softcapping", "final_logit_softcapping"},
            "a cap of logits in this family");
}

constexpr Field kWindow = {"attention.sliding_window", "sliding_window"};

}  // namespace

void DescribeGemma3(const ConfigReader& in, ModelConfig& config) {
  DescribeCommon(in, kLayersOf27B, config);
  in.Refuse({nullptr, "use_bidirectional_attention"}, "attention to later tokens");
  DescribeLayers(in, in.Size(kWindow, kMaxContext, 1024), config);
}

void DescribeGemmaEmbedding(const ConfigReader& in, ModelConfig& config) {
  DescribeCommon(in, /*layers_of_27b=*/0, config);
  config.encoder.both_ways = true;
  ReadPooling(in, config);
  config.rope.theta = 1e6;
  DescribeLayers(in, in.Size(kWindow, kMaxContext, 512) / 2 * 2 + 1, config);
}

}  // namespace bakestone
