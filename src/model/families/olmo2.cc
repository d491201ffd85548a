// OLMo 2 and 3: norms on what attention and MLP give instead of on what they take; queries and keys
// are normalized over all heads at once. OLMo 3 has a window on three layers of four, and scales
// the rope of the others only.
#include "model/families/families.h"

namespace bakestone {

void DescribeOlmo2(const ConfigReader& in, ModelConfig& config) {
  config.norm_placement = NormPlacement::kPost;
  config.qk_norm = QkNorm::kWhole;
  const Field window = {"attention.sliding_window", "sliding_window"};
  if (!in.Number(window)) return;
  const std::vector<bool> local = LocalLayers(in, config, 4);
  SetWindows(config, in.Size(window, kMaxContext), local);
  config.local_rope.theta = 0;  // as the main one's
  for (const bool is_local : local) {
    config.layer_ropes.push_back(is_local ? LayerRope::kLocal : LayerRope::kMain);
  }
}

}  // namespace bakestone
