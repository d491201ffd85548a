// Llama 2 to 3.3 and what is built like it: pre-norm RMS, grouped heads, SwiGLU, rotary over whole
// heads. Mistral's first models have a window in every layer.
#include <limits>

#include "model/families/families.h"

namespace bakestone {

void DescribeWindow(const ConfigReader& in, ModelConfig& config) {
  const int64_t window = in.Size({"attention.sliding_window", "sliding_window"},
                                 std::numeric_limits<uint32_t>::max(), config.context_length);
  if (window < config.context_length) SetWindows(config, window, LocalLayers(in, config, 0));
}

void DescribeLlama(const ConfigReader& in, ModelConfig& config) {
  if (!in.is_hf()) ReadRouter(in, config);  // Mixtral's files call themselves llama
  DescribeWindow(in, config);
}

}  // namespace bakestone
