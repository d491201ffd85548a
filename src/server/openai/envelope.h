// What every answer of OpenAI's older APIs is wrapped in, whole or as chunks of a stream.
#pragma once

#include <cstdint>
#include <string>

#include "engine/request.h"
#include "server/api/answer.h"
#include "server/api/model_registry.h"

namespace bakestone::openai {

using api::Json;

struct EnvelopeOptions {
  std::string id_prefix;          // "chatcmpl-"
  const char* object = "";        // "chat.completion"
  const char* chunk_object = "";  // "chat.completion.chunk"
  bool include_usage = false;     // a stream ends with a chunk that has it
  bool prediction_usage = false;  // how much of a prediction came true is told too
  bool reasoning_usage = false;
};

class Envelope {
 public:
  Envelope(EnvelopeOptions options, const api::ModelEntry& model);

  Json Whole(Json choices, const Usage& usage, int64_t reasoning_tokens = 0) const;
  std::string Chunk(Json choice) const;  // as a server-sent event
  std::string Ending(const Usage& usage,
                     int64_t reasoning_tokens = 0) const;  // the usage, if asked for, and [DONE]

 private:
  Json Base(const char* object) const;
  Json UsageJson(const Usage& usage, int64_t reasoning_tokens) const;

  const EnvelopeOptions options_;
  const std::string id_, model_, fingerprint_;
  const int64_t created_;
};

// With an error in the middle of a stream, or before anything was sent.
void SendFailure(const Error& error, bool stream, http::Responder& responder);

const char* FinishName(FinishReason reason);

}  // namespace bakestone::openai
