#include "server/openai/logprobs.h"

#include <utility>

#include "server/api/answer.h"

namespace bakestone::openai {

using api::Json;

Json TokenLogprobsJson(const Tokenizer& tokenizer, const std::vector<TokenInfo>& tokens) {
  const auto entry = [&](int32_t token, float logprob) {
    Json bytes = Json::array();
    for (const char c : tokenizer.TokenBytes(token)) bytes.push_back(static_cast<uint8_t>(c));
    return Json{{"token", api::TokenString(tokenizer, token)},
                {"logprob", logprob},
                {"bytes", std::move(bytes)}};
  };
  Json content = Json::array();
  for (const TokenInfo& info : tokens) {
    if (!info.logprobs || info.end_of_generation) continue;
    Json item = entry(info.token, info.logprobs->logprob);
    item["top_logprobs"] = Json::array();
    for (const TokenLogprob& top : info.logprobs->top) {
      item["top_logprobs"].push_back(entry(top.token, top.logprob));
    }
    content.push_back(std::move(item));
  }
  return content;
}

}  // namespace bakestone::openai
