// Which type each tensor of a model gets: the mixes that people know by name (Q4_K_M: mostly Q4_K,
// with more bits where errors cost most), by a tensor's part and layer, and what takes the place of
// a type whose blocks a row does not fill. The choices are those of llama.cpp, so that files of one
// name have one size. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convert/model_source.h"
#include "tensor/dtype.h"

namespace bakestone {

struct QuantMix {
  std::string_view name;  // "Q4_K_M"
  DType base;             // of most matrices
  uint32_t file_type;     // general.file_type: do not renumber
};

// All that can be asked for; the names in any case ("q4_k_m").
std::span<const QuantMix> QuantMixes();
const QuantMix* FindQuantMix(std::string_view name);  // null if there is none
std::optional<DType> FindWeightType(
    std::string_view name);  // "q6_k", "f16", ...; of those that can be written

// Whether a tensor is a matrix of weights: norms, biases, routers and small state tensors stay as
// they are.
bool IsQuantizable(const SourceTensor& tensor);

// The type for each tensor of `source`, in its order; those that are not quantizable keep theirs.
// With an importance matrix, mixes that guard against its absence spend less.
std::vector<DType> ChooseTypes(const QuantMix& mix, const ModelSource& source, bool has_importance);

// `wanted`, or the nearest type above it whose blocks fill rows of `cols` weights.
DType FittingType(DType wanted, int64_t cols);

}  // namespace bakestone
