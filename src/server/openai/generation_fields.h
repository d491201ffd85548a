// The fields that /v1/chat/completions and /v1/completions share, read into what the engine takes.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/request.h"
#include "server/api/fields.h"
#include "text/tokenizer.h"

namespace bakestone::openai {

inline constexpr int64_t kMaxChoices = 16;
inline constexpr size_t kMaxStops = 16;

struct GenerationFields {
  GenerationRequest request;  // without prompt, adapter and sink
  int64_t n = 1;
  bool stream = false;
  bool include_usage = false;
  bool has_prediction = false;  // request.expected came from the client: its usage is told
};

// Reads stream, stream_options, n, seed, stop, the sampling fields, prediction and speculate.
// Throws ApiError 400.
GenerationFields ReadGenerationFields(api::Fields& fields, const Tokenizer& tokenizer);

}  // namespace bakestone::openai
