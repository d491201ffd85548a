// POST /v1/embeddings: texts or token ids in, a vector each out, as numbers or as base64.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::openai {

// Throws ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleEmbeddings(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
