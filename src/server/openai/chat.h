// POST /v1/chat/completions: messages in, an assistant's message out.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::openai {

// Throws ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleChat(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
