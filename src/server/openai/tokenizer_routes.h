// POST /tokenize and /detokenize, GET /tokenizer_info: what evaluation harnesses ask of a server
// beside completions. Not of OpenAI's API; the names are those that other servers use.
#pragma once

#include <memory>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone::openai {

void HandleTokenizerInfo(const api::Context& context, const http::Request& request,
                         std::shared_ptr<http::Responder> responder);
void HandleTokenize(const api::Context& context, const http::Request& request,
                    std::shared_ptr<http::Responder> responder);
void HandleDetokenize(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder);

}  // namespace bakestone::openai
