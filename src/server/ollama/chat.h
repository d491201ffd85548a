// Ollama's API: POST /api/chat and /api/generate. Streamed by default, as lines of JSON.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::ollama {

// Throw ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleChat(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder);
void HandleGenerate(const api::Context& context, const http::Request& request,
                    std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::ollama
