// SmolLM3: a Llama whose every fourth layer has no rope.
#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {

void DescribeSmolLm3(const ConfigReader& in, ModelConfig& config) {
  const Field field = {nullptr, "no_rope_layers"};  // 1 where the layer has rope
  const std::vector<double> given = in.Numbers(field);
  if (!given.empty() && given.size() != static_cast<size_t>(config.num_layers)) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected one number for each of {} layers, found {}",
          in.file(), in.Spelled(field), config.num_layers, given.size());
  }
  const int64_t period = in.Size({nullptr, "no_rope_layer_interval"}, kMaxLayers, 4);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool has =
        given.empty() ? (layer + 1) % period != 0 : given[static_cast<size_t>(layer)] != 0;
    config.layer_ropes.push_back(has ? LayerRope::kMain : LayerRope::kNone);
  }
  if (in.Flag({nullptr, "use_sliding_window"}).value_or(false)) {
    SetWindows(config, in.Size({nullptr, "sliding_window"}, kMaxContext, config.context_length),
               LocalLayers(in, config, 0));
  }
}

}  // namespace bakestone
