// Qwen2 and Qwen2.5: a Llama with biases on q, k and v (taken where the file has them). Windows,
// which no published model uses, belong to the layers from max_window_layers on.
#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {

void DescribeQwen2(const ConfigReader& in, ModelConfig& config) {
  if (in.is_hf()) {
    if (in.Flag({nullptr, "use_sliding_window"}).value_or(false)) {
      const int64_t window =
          in.Size({nullptr, "sliding_window"}, kMaxContext, config.context_length);
      std::vector<bool> local = LocalLayers(in, config, 0);
      if (in.Texts({nullptr, "layer_types"}).empty()) {
        const int64_t first =
            in.Size({nullptr, "max_window_layers"}, kMaxLayers, config.num_layers);
        for (int64_t layer = 0; layer < std::min(first, config.num_layers); ++layer) {
          local[static_cast<size_t>(layer)] = false;
        }
      }
      SetWindows(config, window, local);
    }
    return;
  }
  const Field field = {"attention.sliding_window", nullptr};
  const int64_t window = in.Size(field, int64_t{1} << 32, config.context_length);
  if (window < config.context_length) {
    Throw(ErrorCode::kUnsupported,
          "{}: {}: expected the context length {} or more, found {}: which layers of this "
          "architecture have a window is not known",
          in.file(), in.Spelled(field), config.context_length, window);
  }
}

}  // namespace bakestone
