// POST /v1/responses: items in, items out, with the API's full sequence of events when streamed. An
// answer may be gone on from by its id as long as it is kept (memory only,
// api/conversation_store.h). GET and DELETE /v1/responses/{id} show and forget one.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::openai {

// Throw ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleResponses(const api::Context& context, const http::Request& request,
                     std::shared_ptr<http::Responder> responder);
void HandleGetResponse(const api::Context& context, const http::Request& request,
                       std::shared_ptr<http::Responder> responder);
void HandleDeleteResponse(const api::Context& context, const http::Request& request,
                          std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
