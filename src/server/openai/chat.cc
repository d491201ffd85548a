#include "server/openai/chat.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/api/api_error.h"
#include "server/api/chat_answer.h"
#include "server/openai/chat_messages.h"
#include "server/openai/envelope.h"
#include "server/openai/generation_fields.h"
#include "server/openai/logprobs.h"

namespace bakestone::openai {
namespace {

using api::Fields;

Json LogprobsJson(const Tokenizer& tokenizer, const std::vector<TokenInfo>& tokens) {
  return {{"content", TokenLogprobsJson(tokenizer, tokens)}, {"refusal", nullptr}};
}

class OpenAiChatAnswer : public api::ChatAnswer {
 public:
  OpenAiChatAnswer(api::ChatAnswerOptions options, EnvelopeOptions envelope, bool logprobs,
                   std::shared_ptr<http::Responder> responder)
      : ChatAnswer(std::move(options), std::move(responder)),
        envelope_(std::move(envelope), *this->options().model),
        logprobs_(logprobs) {}

 private:
  static Json Choice(int64_t index, const char* key, Json value, Json logprobs, Json finish) {
    return {{"index", index},
            {key, std::move(value)},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", std::move(finish)}};
  }
  Json Finish(const api::ChatReply& reply) const {
    if (!reply.finish) return nullptr;
    const bool calls = !reply.calls.empty() && *reply.finish == FinishReason::kStop;
    return calls ? "tool_calls" : FinishName(*reply.finish);
  }

  // The role comes first and alone: clients lose the rest without it.
  void BeginStream() override {
    responder().Begin({.content_type = api::kEventStream, .headers = {}, .body = {}}, ": ping\n\n");
    for (int64_t i = 0; i < num_choices(); ++i) {
      responder().Write(envelope_.Chunk(
          Choice(i, "delta", {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr)));
    }
  }

  void OnDelta(int64_t index, const dialog::ReplyDelta& delta,
               const std::vector<TokenInfo>& tokens) override {
    if (!options().stream) return;
    const api::ChatReply& whole = reply(index);
    const bool has_logprobs = logprobs_ && !tokens.empty();
    if (delta.empty() && !has_logprobs && !whole.finish) return;
    Json json = Json::object();
    if (!delta.reasoning.empty()) json["reasoning"] = json["reasoning_content"] = delta.reasoning;
    if (!delta.text.empty()) json["content"] = delta.text;
    for (const dialog::CallDelta& call : delta.calls) {
      if (!call.begins && call.arguments.empty()) continue;
      Json part = {{"index", call.index}};
      if (call.begins) {
        part["id"] = whole.calls[static_cast<size_t>(call.index)].id;
        part["type"] = "function";
        part["function"]["name"] = call.name;
      }
      part["function"]["arguments"] = call.arguments;
      json["tool_calls"].push_back(std::move(part));
    }
    Json logprobs = has_logprobs ? LogprobsJson(tokenizer(), tokens) : Json(nullptr);
    responder().Write(envelope_.Chunk(
        Choice(index, "delta", std::move(json), std::move(logprobs), Finish(whole))));
  }

  Json Message(const api::ChatReply& reply) const {
    Json message = {{"role", "assistant"}, {"content", reply.text}, {"refusal", nullptr}};
    if (!reply.reasoning.empty()) {
      message["reasoning"] = message["reasoning_content"] = reply.reasoning;
    }
    if (reply.calls.empty()) return message;
    if (reply.text.empty()) message["content"] = nullptr;
    for (const api::ToolCall& call : reply.calls) {
      message["tool_calls"].push_back(
          {{"id", call.id},
           {"type", "function"},
           {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    return message;
  }

  void Complete() override {
    if (options().stream) {
      responder().Write(envelope_.Ending(TotalUsage(), ReasoningTokens()));
      responder().End();
      return;
    }
    Json choices = Json::array();
    for (int64_t i = 0; i < num_choices(); ++i) {
      Json logprobs = logprobs_ ? LogprobsJson(tokenizer(), reply(i).tokens) : Json(nullptr);
      choices.push_back(
          Choice(i, "message", Message(reply(i)), std::move(logprobs), Finish(reply(i))));
    }
    responder().Send(
        {.headers = {},
         .body = api::Dump(envelope_.Whole(std::move(choices), TotalUsage(), ReasoningTokens()))});
  }
  void Fail(const Error& error) override { SendFailure(error, options().stream, responder()); }

  const Envelope envelope_;
  const bool logprobs_;
};

void ReadLogprobs(Fields& fields, GenerationRequest* request) {
  request->logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Integer("top_logprobs", 0, 20);
  if (top && !request->logprobs) fields.Bad("top_logprobs", "only allowed with \"logprobs\": true");
  request->top_logprobs = static_cast<int32_t>(top.value_or(0));
}

void ReadMaxTokens(Fields& fields, GenerationRequest* request) {
  const auto max_tokens = fields.Integer("max_tokens", 1, INT32_MAX);
  const auto max_completion = fields.Integer("max_completion_tokens", 1, INT32_MAX);
  if (max_tokens && max_completion && *max_tokens != *max_completion) {
    fields.Bad("max_tokens",
               "differs from max_completion_tokens, its newer name; give one of them");
  }
  request->max_tokens = max_completion ? max_completion : max_tokens;
}

void ReadTemplateFields(Fields& fields, api::ChatTask* task) {
  if (const Json* variables = fields.Object("chat_template_kwargs")) task->variables = *variables;
  task->effort = fields.String("reasoning_effort");
  static constexpr std::array kEfforts = {"none", "minimal", "low", "medium", "high", "xhigh"};
  if (task->effort &&
      std::find(kEfforts.begin(), kEfforts.end(), *task->effort) == kEfforts.end()) {
    fields.Bad("reasoning_effort", "expected none, minimal, low, medium, high or xhigh");
  }
  const bool continue_last = fields.Bool("continue_final_message").value_or(false);
  const bool prompt = fields.Bool("add_generation_prompt").value_or(!continue_last);
  if (continue_last && prompt) {
    fields.Bad("continue_final_message", "not together with add_generation_prompt");
  }
  if (!continue_last && !prompt) {
    fields.Unsupported("add_generation_prompt",
                       "false only makes sense with continue_final_message");
  }
  if (continue_last && task->messages.back()["role"] != "assistant") {
    fields.Bad("continue_final_message", "the last message must be the assistant's");
  }
  task->continue_last = continue_last;
}

void RefuseUnsupported(Fields& fields) {
  fields.Only("modalities", Json::array({"text"}), "only text is supported");
  fields.Only("verbosity", "medium", "how long an answer is, is for the prompt to say");
  if (fields.Find("audio")) fields.Unsupported("audio", "only text is supported");
  if (fields.Find("web_search_options")) {
    fields.Unsupported("web_search_options", "this server does not search");
  }
}

}  // namespace

void HandleChat(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model = context.Select(request, fields.RequiredString("model"));
  api::ChatTask task;
  task.messages = ReadMessages(fields);
  ReadTools(fields, &task);
  GenerationFields generation = ReadGenerationFields(fields, model->model().tokenizer);
  task.request = std::move(generation.request);
  api::SetOwner(request, &task.request);
  task.n = generation.n;
  ReadLogprobs(fields, &task.request);
  ReadMaxTokens(fields, &task.request);
  ReadTemplateFields(fields, &task);
  RefuseUnsupported(fields);
  task.form = api::ReadResponseFormat(fields);
  fields.Finish();

  api::PreparedChat prepared = api::PrepareChat(*model, task);
  api::ChatAnswerOptions options{.model = model,
                                 .stream = generation.stream,
                                 .parsing = std::move(prepared.parsing),
                                 .one_call = prepared.one_call,
                                 .begun = std::move(prepared.begun)};
  EnvelopeOptions envelope{
      "chatcmpl-",
      "chat.completion",
      "chat.completion.chunk",
      generation.include_usage,
      generation.has_prediction,
      model->chat->traits.format.reasoning.present() ||
          model->chat->traits.format.calls.shape == dialog::CallShape::kHarmony};
  const auto answer = std::make_shared<OpenAiChatAnswer>(
      std::move(options), std::move(envelope), task.request.logprobs, std::move(responder));
  answer->StartInForm(model, std::move(prepared.requests), prepared.form, request);
}

}  // namespace bakestone::openai
