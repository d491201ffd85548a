// The fields that Ollama's routes share.
#pragma once

#include "server/api/chat_task.h"
#include "server/api/fields.h"

namespace bakestone::ollama {

// The values of `options`, of which those that say how tokens are drawn go into the request. Throws
// ApiError 400 for what is not known.
void ReadOptions(const api::Json& json, GenerationRequest* request);

// options, format, think, logprobs, top_logprobs and those without effect. Throws ApiError 400.
void ReadShared(api::Fields& fields, api::ChatTask* task);

}  // namespace bakestone::ollama
