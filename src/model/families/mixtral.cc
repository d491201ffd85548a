// Mixtral: Mistral with experts in every layer. Its GGUF files have the architecture llama.
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kMixtralHf = [] {
  TensorNames names = kHfNames;
  names.router = "block_sparse_moe.gate";
  names.experts = "block_sparse_moe.experts.";
  names.of_expert = {"w1", "w3", "w2"};
  return names;
}();

void DescribeMixtral(const ConfigReader& in, ModelConfig& config) {
  ReadRouter(in, config);
  DescribeWindow(in, config);
}

}  // namespace bakestone
