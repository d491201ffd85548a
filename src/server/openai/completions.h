// POST /v1/completions: text or token ids in, their continuation out; with echo and logprobs as the
// evaluation harnesses need them.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::openai {

// Throws ApiError or Error with nothing sent; afterwards the answer comes through the responder.
void HandleCompletion(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
