// Log-probabilities of generated tokens as OpenAI's newer APIs show them.
#pragma once

#include <vector>

#include "engine/request.h"
#include "server/api/fields.h"
#include "text/tokenizer.h"

namespace bakestone::openai {

// [{token, logprob, bytes, top_logprobs: [...]}], of those tokens that have them and a text.
api::Json TokenLogprobsJson(const Tokenizer& tokenizer, const std::vector<TokenInfo>& tokens);

}  // namespace bakestone::openai
