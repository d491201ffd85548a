// A model's settings and its tokenizer as GGUF metadata. What is written is read back with the
// reader that will read it, and held against what was to be said: a setting that GGUF's keys cannot
// say is an error, never lost.
#pragma once

#include <optional>
#include <string>

#include "format/gguf_writer.h"
#include "model/config.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// What the dense layers behind an encoder are called, without ".weight".
std::string GgufDense(size_t index);

// What a folder's model would lose as a GGUF file, in words; nullopt: nothing.
std::optional<std::string> LostInGguf(const ModelConfig& config);

// The architecture's keys. Throws kUnsupported naming the setting that would be lost; `source`
// opens the message.
void AddConfigKeys(const ModelConfig& config, const std::string& source, GgufWriter& writer);

// tokenizer.ggml.* as files of the model's architecture have them, padded to the rows of the
// embedding. Throws kUnsupported for a tokenizer that GGUF has no name for.
void AddTokenizerKeys(const TokenizerSpec& spec, const ModelConfig& config,
                      const std::string& source, GgufWriter& writer);

}  // namespace bakestone
