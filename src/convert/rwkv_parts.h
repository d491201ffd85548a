// What the layers of RWKV-7 have otherwise in folders than in GGUF files: shares of the token
// before, one tensor for each branch's input or all in one [6, hidden], where GGUF has one [6, 1,
// 1, hidden]; and the first layer's products towards the first layer's values, which nothing reads,
// but whose tensors other readers of GGUF ask for.
#pragma once

#include <string>
#include <vector>

#include "convert/model_source.h"
#include "model/config.h"
#include "model/families/tensor_names.h"
#include "model/tensor_source.h"

namespace bakestone {

struct RwkvLayer {
  const ModelConfig& config;
  const TensorNames &gguf, &folder;
  int64_t layer = 0;
};

// A layer's, of a folder; the folder's tensors that they are made of, or that nothing reads, are
// added to `taken`. Throws kNotFound and kCorrupt as TensorSource::Tensor does.
std::vector<SourceTensor> RwkvPartsToGguf(const RwkvLayer& layer, const TensorSource& tensors,
                                          std::vector<std::string>& taken);

// And back: the shares one by one. Throws kCorrupt where their shape is not the config's.
std::vector<SourceTensor> RwkvPartsToFolder(const RwkvLayer& layer, const ModelSource& source);

// GGUF's names of what RwkvPartsToFolder makes, and of what is dropped.
std::vector<std::string> RwkvPartsOfGguf(const RwkvLayer& layer);

// The widths of the narrow products, as GGUF's keys and a config.json call them.
struct RwkvRank {
  const char *gguf, *folder;
  int64_t rank = 0;
};
std::vector<RwkvRank> RwkvRanks(const RwkvLayer& first, const ModelSource& source);

}  // namespace bakestone
