// The tensors of a model that are called one thing in a Hugging Face folder and another in a GGUF
// file, and how their values lie there: what only some families have (a latent's projections,
// convolutions, the delta rule, sinks, embeddings by layer, an encoder's tables). Readers of
// folders and writers of folders go through the same pairs, so that one undoes the other. Pure
// data; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "convert/model_source.h"
#include "model/config.h"
#include "model/families/tensor_names.h"

namespace bakestone {

enum class TensorValue : uint8_t {
  kSame,
  kLessOne,    // the folder's is GGUF's less 1
  kLogarithm,  // GGUF's is -exp of the folder's
};

struct TensorPair {
  std::string gguf, folder;  // with their suffixes
  bool optional = false;
  TensorValue value = TensorValue::kSame;
  // GGUF's row (column) i is the folder's rows[i] (columns[i]); of a vector, its elements are
  // columns. Empty: the same order.
  std::vector<int64_t> rows, columns;
  std::vector<int64_t> ne;            // in GGUF; empty: the folder's shape
  std::vector<int64_t> folder_shape;  // slowest first; empty: GGUF's
  bool full = false;                  // F32 in GGUF, as vectors are
  int64_t first_row = 0;              // rows of the folder's before GGUF's first, which are left
};

// Of a layer; -1: of the model, beside its layers.
std::vector<TensorPair> PairsOf(const ModelConfig& config, const TensorNames& gguf,
                                const TensorNames& folder, int64_t layer);

// A tensor as the other format has it; its name, shape and rows become that format's.
SourceTensor ToGguf(const TensorPair& pair, SourceTensor stored);
SourceTensor ToFolder(const TensorPair& pair, SourceTensor stored);

// Whether folders of the model's family have norms less 1.
bool FoldersHaveNormsLessOne(const ModelConfig& config);

}  // namespace bakestone
