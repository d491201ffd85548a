// GET /v1/models and /v1/models/{id}.
#pragma once

#include <memory>
#include <string>

#include "server/api/model_registry.h"
#include "server/http/message.h"

namespace bakestone::openai {

void HandleModels(const api::ModelRegistry& models, const http::Request& request, std::shared_ptr<http::Responder> responder);
void HandleModel(const api::ModelRegistry& models, const std::string& id, http::Responder& responder);

}  // namespace bakestone::openai
