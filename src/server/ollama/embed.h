// Ollama's API: POST /api/embed, and the older /api/embeddings of one text.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::ollama {

// Throw ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleEmbed(const api::Context& context, const http::Request& request,
                 std::shared_ptr<http::Responder> responder);
void HandleEmbeddings(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::ollama
