// Anthropic's API: POST /v1/messages and /v1/messages/count_tokens.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::anthropic {

// Throw ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleMessages(const api::Context& context, const http::Request& request,
                    std::shared_ptr<http::Responder> responder);
void HandleCountTokens(const api::Context& context, const http::Request& request,
                       std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::anthropic
