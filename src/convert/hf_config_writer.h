// A model's settings as config.json of a Hugging Face folder, in the spelling of transformers 4,
// which 5 reads too. What is written is read back with the folder's reader and held against the
// model's: what cannot be said is an error, never lost.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "model/config.h"
#include "tensor/dtype.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

struct Family;

// What a GGUF model would lose as a folder, in words; nullopt: nothing.
std::optional<std::string> LostInFolder(const ModelConfig& config);

// Of a model that loses nothing. Tensors are of `type`.
nlohmann::ordered_json MakeHfConfig(const ModelConfig& config, const TokenizerSpec& tokenizer,
                                    DType type);

// The family whose names and settings the model has.
const Family& FamilyOf(const ModelConfig& config);

}  // namespace bakestone
