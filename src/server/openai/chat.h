// POST /v1/chat/completions: messages in, an assistant's message out.
#pragma once

#include <memory>

#include "server/http/message.h"
#include "server/openai/fields.h"
#include "server/server.h"

namespace bakestone::openai {

// Throws ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleChat(const ServedModel& model, const std::string& fingerprint, const Json& body,
                const http::Request& request, std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
