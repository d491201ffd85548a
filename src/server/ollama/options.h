// The fields that /api/chat and /api/generate share.
#pragma once

#include "server/api/chat_task.h"
#include "server/api/fields.h"

namespace bakestone::ollama {

// options, format, think, logprobs, top_logprobs and those without effect. Throws ApiError 400.
void ReadShared(api::Fields& fields, api::ChatTask* task);

}  // namespace bakestone::ollama
