// GET /v1/models and /v1/models/{id}.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::openai {

void HandleModels(const api::Context& context, const http::Request& request,
                  std::shared_ptr<http::Responder> responder);
void HandleModel(const api::Context& context, const http::Request& request,
                 std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
