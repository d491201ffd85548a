// Ollama's API: what is served. GET /api/tags, /api/ps and /api/version, POST /api/show.
#pragma once

#include <memory>
#include <string>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::ollama {

// The name of what is served for a name as Ollama's clients write it: "smollm2" or
// "smollm2:latest".
std::string ServedName(const api::Context& context, const std::string& name);
std::string Timestamp();  // now, RFC 3339

void HandleTags(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder);
void HandlePs(const api::Context& context, const http::Request& request,
              std::shared_ptr<http::Responder> responder);
void HandleShow(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder);
void HandleVersion(const api::Context& context, const http::Request& request,
                   std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::ollama
