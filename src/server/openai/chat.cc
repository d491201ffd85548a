#include "server/openai/chat.h"

#include <set>
#include <utility>

#include <fmt/format.h>

#include "engine/chat.h"
#include "server/openai/answer.h"
#include "server/openai/api_error.h"
#include "server/openai/generation_fields.h"

namespace bakestone::openai {
namespace {

constexpr size_t kMaxMessages = 4096;

// A message's text: a string, or a list of text parts.
std::string ContentOf(const Json& message, const std::string& where) {
  const auto found = message.find("content");
  if (found == message.end() || found->is_null()) {
    BadField("messages", fmt::format("{}.content: expected a string or a list of text parts", where));
  }
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) {
    BadField("messages", fmt::format("{}.content: expected a string or a list of text parts, found {}", where,
                                     found->type_name()));
  }
  std::string text;
  for (const Json& part : *found) {
    const bool is_text = part.is_object() && part.contains("type") && part["type"] == "text" &&
                         part.contains("text") && part["text"].is_string();
    if (!is_text) {
      UnsupportedField("messages", fmt::format("{}.content: only parts of the form "
                                               "{{\"type\": \"text\", \"text\": ...}} are accepted", where));
    }
    text += part["text"].get<std::string>();
  }
  return text;
}

// Checked and brought to {role, content}: what templates read.
Json ReadMessages(Fields& fields) {
  const Json* messages = fields.Find("messages");
  if (!messages || !messages->is_array() || messages->empty() || messages->size() > kMaxMessages) {
    BadField("messages", fmt::format("messages: expected a list of 1 to {} messages", kMaxMessages));
  }
  static const std::set<std::string> kRoles = {"system", "developer", "user", "assistant"};
  Json result = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    const Json& message = (*messages)[i];
    const std::string where = fmt::format("messages[{}]", i);
    if (!message.is_object()) BadField("messages", where + ": expected an object");
    Fields inner(message);
    const std::string role = inner.RequiredString("role");
    if (role == "tool" || role == "function" || inner.Find("tool_calls") || inner.Find("function_call")) {
      UnsupportedField("messages", where + ": tool calls are not supported by this server");
    }
    if (!kRoles.contains(role)) {
      BadField("messages", where + ".role: expected system, developer, user or assistant");
    }
    inner.Ignore({"content", "name", "refusal", "annotations", "audio"});
    inner.Finish();
    result.push_back({{"role", role == "developer" ? "system" : role}, {"content", ContentOf(message, where)}});
  }
  return result;
}

void RefuseUnsupported(Fields& fields) {
  const Json* tools = fields.Find("tools");
  if (tools && !(tools->is_array() && tools->empty())) {
    UnsupportedField("tools", "tools: tool calls are not supported by this server");
  }
  const Json* functions = fields.Find("functions");
  if (functions && !(functions->is_array() && functions->empty())) {
    UnsupportedField("functions", "functions: tool calls are not supported by this server");
  }
  fields.Only("tool_choice", "none", "tool calls are not supported by this server");
  fields.Only("function_call", "none", "tool calls are not supported by this server");
  fields.Only("response_format", {{"type", "text"}}, "constrained output is not supported by this server");
  fields.Only("modalities", Json::array({"text"}), "only text is supported");
}

Json LogprobsJson(const Tokenizer& tokenizer, const std::vector<TokenInfo>& tokens) {
  const auto entry = [&](int32_t token, float logprob) {
    Json bytes = Json::array();
    for (const char c : tokenizer.TokenBytes(token)) bytes.push_back(static_cast<uint8_t>(c));
    return Json{{"token", TokenString(tokenizer, token)}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
  };
  Json content = Json::array();
  for (const TokenInfo& info : tokens) {
    if (!info.logprobs || info.end_of_generation) continue;
    Json item = entry(info.token, info.logprobs->logprob);
    item["top_logprobs"] = Json::array();
    for (const TokenLogprob& top : info.logprobs->top) item["top_logprobs"].push_back(entry(top.token, top.logprob));
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

class ChatAnswer : public Answer {
 public:
  ChatAnswer(AnswerOptions options, bool logprobs, const Tokenizer& tokenizer,
             std::shared_ptr<http::Responder> responder)
      : Answer(std::move(options), tokenizer, std::move(responder)), logprobs_(logprobs) {}

 private:
  Json Chunk(int64_t index, Json delta, Json logprobs, Json finish) const {
    return {{"index", index}, {"delta", std::move(delta)}, {"logprobs", std::move(logprobs)},
            {"finish_reason", std::move(finish)}};
  }
  // The role comes first and alone: clients lose the rest without it.
  Json StreamStart(int64_t index) override {
    return Chunk(index, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
  }
  Json StreamChoice(int64_t index, const Event& event) override {
    const bool has_logprobs = logprobs_ && !event.tokens.empty();
    if (event.text.empty() && !has_logprobs && !event.finish) return nullptr;
    Json delta = Json::object();
    if (!event.text.empty()) delta["content"] = event.text;
    Json finish = event.finish ? Json(FinishName(*event.finish)) : Json(nullptr);
    return Chunk(index, std::move(delta), has_logprobs ? LogprobsJson(tokenizer(), event.tokens) : Json(nullptr),
                 std::move(finish));
  }
  Json FullChoice(int64_t index, const Choice& choice) override {
    Json json;
    json["index"] = index;
    json["message"] = {{"role", "assistant"}, {"content", choice.all.text}, {"refusal", nullptr}};
    json["logprobs"] = logprobs_ ? LogprobsJson(tokenizer(), choice.all.tokens) : Json(nullptr);
    json["finish_reason"] = FinishName(*choice.all.finish);
    return json;
  }
  const char* object_name(bool chunk) const override {
    return chunk ? "chat.completion.chunk" : "chat.completion";
  }

  const bool logprobs_;
};

}  // namespace

void HandleChat(const ServedModel& model, const std::string& fingerprint, const Json& body,
                const http::Request& request, std::shared_ptr<http::Responder> responder) {
  const Model& weights = model.engine->model();
  Fields fields(body);
  fields.Ignore({"model"});
  const Json messages = ReadMessages(fields);
  GenerationFields generation = ReadGenerationFields(fields, weights.tokenizer);
  GenerationRequest& base = generation.request;
  base.logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Integer("top_logprobs", 0, 20);
  if (top && !base.logprobs) BadField("top_logprobs", "top_logprobs: only allowed with \"logprobs\": true");
  base.top_logprobs = static_cast<int32_t>(top.value_or(0));
  const auto max_tokens = fields.Integer("max_tokens", 1, INT32_MAX);
  const auto max_completion = fields.Integer("max_completion_tokens", 1, INT32_MAX);
  if (max_tokens && max_completion && *max_tokens != *max_completion) {
    BadField("max_tokens", "max_tokens: differs from max_completion_tokens, its newer name; give one of them");
  }
  base.max_tokens = max_completion ? max_completion : max_tokens;
  RefuseUnsupported(fields);
  fields.Finish();

  base.prompt = RenderChat(weights, messages).tokens;
  base.adapter = model.adapter;
  base.cache_salt = request.tenant;
  std::vector<GenerationRequest> requests(static_cast<size_t>(generation.n), base);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].sampling.stream = i;
  const auto answer = std::make_shared<ChatAnswer>(
      AnswerOptions{"chatcmpl-", model.id, fingerprint, generation.n, generation.stream, generation.include_usage,
                    generation.has_prediction},
      base.logprobs, weights.tokenizer, std::move(responder));
  answer->Start(*model.engine, std::move(requests));
}

}  // namespace bakestone::openai
