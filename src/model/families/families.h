// The families of models that the decoder can be configured for, as data: the architecture's name
// in GGUF and the function that maps its metadata to a ModelConfig. To add one, write its reader in
// a file of this folder and give it a row in families.cc. Stateless; any thread.
#pragma once

#include <span>
#include <string_view>

#include "model/config.h"

namespace bakestone {

class GgufFile;

struct Family {
  std::string_view architecture;              // general.architecture
  ModelConfig (*read)(const GgufFile& file);  // throws as ReadConfig does
};

std::span<const Family> Families();

// Pre-norm RMS, GQA, SwiGLU, full rotary: Llama, Mistral, SmolLM2, TinyLlama, Yi ("llama") and,
// with biases on q, k and v, Qwen2 ("qwen2").
ModelConfig ReadLlama(const GgufFile& file);

}  // namespace bakestone
