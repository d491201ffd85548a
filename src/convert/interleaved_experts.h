// gpt-oss' experts: folders have gate's and up's rows one after the other in one tensor, in MXFP4
// or turned (model/weights_interleaved.cc gives the layout); GGUF has them apart, as stacks
// [experts, n, k] with biases [experts, n].
#pragma once

#include <string>
#include <vector>

#include "convert/model_source.h"
#include "model/config.h"
#include "model/families/tensor_names.h"
#include "model/tensor_source.h"

namespace bakestone {

// The three stacks of a layer and their biases, by GGUF's names, of what the folder has. The names
// of what was read are added to `taken`. Throws kCorrupt where a shape is not the config's.
std::vector<SourceTensor> InterleavedToGguf(const ModelConfig& config, const TensorNames& gguf,
                                            const TensorNames& folder, int64_t layer,
                                            const TensorSource& tensors,
                                            std::vector<std::string>& taken);

// And back, as a folder has them without quantization.
std::vector<SourceTensor> InterleavedToFolder(const ModelConfig& config, const TensorNames& gguf,
                                              const TensorNames& folder, int64_t layer,
                                              const ModelSource& source);

}  // namespace bakestone
