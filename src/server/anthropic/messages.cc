#include "server/anthropic/messages.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/quote.h"
#include "server/anthropic/block_output.h"
#include "server/anthropic/message_reader.h"
#include "server/api/api_error.h"
#include "server/api/chat_answer.h"

namespace bakestone::anthropic {
namespace {

using api::Fields;

constexpr size_t kMaxStops = 16;

class MessageAnswer : public api::ChatAnswer {
 public:
  // prompt_tokens: told before the first token is there. cut_short: the context holds less than
  // max_tokens.
  struct Details {
    int64_t prompt_tokens = 0;
    bool cut_short = false;
    std::vector<std::string> dropped = {};
  };
  MessageAnswer(api::ChatAnswerOptions options, Details details,
                std::shared_ptr<http::Responder> responder)
      : ChatAnswer(std::move(options), std::move(responder)),
        details_(std::move(details)),
        id_(api::MakeId("msg_")),
        output_([this](const char* type, Json event) { Emit(type, std::move(event)); }) {}

 private:
  http::Response Head(const char* type) const {
    http::Response head{.content_type = type, .headers = {}, .body = {}};
    if (!details_.dropped.empty()) {
      head.headers.emplace_back(
          "X-Bakestone-Warning",
          fmt::format("{} tools of a kind that this server does not run were left out",
                      details_.dropped.size()));
    }
    return head;
  }
  void Emit(const char* type, Json event) {
    if (!this->options().stream) return;
    Json json = {{"type", type}};
    json.update(event);
    responder().Write(api::SseEvent(type, json));
  }
  static Json UsageJson(int64_t prompt, int64_t cached, int64_t output) {
    return {{"input_tokens", prompt - cached},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", cached},
            {"output_tokens", output}};
  }
  Json Message() const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", options().model->served.id},
            {"content", Json::array()},
            {"stop_reason", nullptr},
            {"stop_sequence", nullptr},
            {"usage", UsageJson(details_.prompt_tokens, 0, 0)}};
  }
  const char* StopReason() const {
    const api::ChatReply& whole = reply(0);
    if (whole.finish == FinishReason::kLength) {
      return details_.cut_short ? "model_context_window_exceeded" : "max_tokens";
    }
    if (!whole.calls.empty()) return "tool_use";
    return whole.stop_string.empty() ? "end_turn" : "stop_sequence";
  }
  Json StopSequence() const {
    return reply(0).stop_string.empty() ? Json(nullptr) : Json(reply(0).stop_string);
  }

  void BeginStream() override {
    responder().Begin(Head(api::kEventStream), api::SseEvent("ping", {{"type", "ping"}}));
    Emit("message_start", {{"message", Message()}});
  }
  void OnDelta(int64_t, const dialog::ReplyDelta& delta, const std::vector<TokenInfo>&) override {
    output_.Add(delta, reply(0));
  }

  void Complete() override {
    output_.Finish();
    const Usage usage = TotalUsage();
    Json used = UsageJson(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens);
    if (!options().stream) {
      Json message = Message();
      message["content"] = output_.Blocks();
      message["stop_reason"] = StopReason();
      message["stop_sequence"] = StopSequence();
      message["usage"] = std::move(used);
      http::Response response = Head("application/json");
      response.body = api::Dump(message);
      responder().Send(std::move(response));
      return;
    }
    Emit("message_delta",
         {{"delta", {{"stop_reason", StopReason()}, {"stop_sequence", StopSequence()}}},
          {"usage", std::move(used)}});
    Emit("message_stop", Json::object());
    responder().End();
  }
  void Fail(const Error& error) override {
    const api::ApiError api = api::FromError(error);
    if (!options().stream) {
      responder().Send(ToResponse(api, api::Family::kAnthropic));
      return;
    }
    responder().Write(
        fmt::format("event: error\ndata: {}\n\n", ErrorBody(api, api::Family::kAnthropic)));
    responder().End();
  }

  const Details details_;
  const std::string id_;
  BlockOutput output_;
};

void ReadThinking(Fields& fields, api::ChatTask* task) {
  task->effort = "none";  // without the field, Anthropic's models do not think
  if (const Json* thinking = fields.Object("thinking")) {
    Fields inner(*thinking, "thinking.", "thinking");
    const std::string type = inner.RequiredString("type");
    static constexpr std::array kTypes = {"enabled", "disabled", "adaptive", "between_tools"};
    if (std::find(kTypes.begin(), kTypes.end(), type) == kTypes.end()) {
      inner.Bad("type", "expected enabled, disabled or adaptive");
    }
    inner.Integer("budget_tokens", 1, INT32_MAX);
    inner.Ignore({"display"});  // thinking is shown as it is
    inner.Finish();
    if (type != "disabled") task->effort = "medium";
  }
  if (const Json* config = fields.Object("output_config")) {
    Fields inner(*config, "output_config.", "output_config");
    const auto effort = inner.String("effort");
    if (const Json* format = inner.Find("format")) {
      task->form = api::ReadFormat(*format, "output_config", false);
    }
    inner.Finish();
    if (effort && task->effort != "none") task->effort = *effort;
  }
}

// The conversation, the tools, and what else changes the prompt; then what changes nothing.
api::ChatTask ReadPrompt(Fields& fields, std::vector<std::string>* dropped) {
  api::ChatTask task;
  ReadConversation(fields, &task);
  ReadTools(fields, &task, dropped);
  ReadThinking(fields, &task);
  if (const Json* format = fields.Find("output_format")) {  // its older name
    if (task.form) fields.Bad("output_format", "not together with output_config.format");
    task.form = api::ReadFormat(*format, "output_format", false);
  }
  for (const char* name : {"container", "mcp_servers", "fallbacks"}) {
    const Json* found = fields.Find(name);
    if (found && !found->empty()) fields.Unsupported(name, "this server does not do that");
  }
  fields.Ignore({"cache_control", "context_management", "diagnostics", "inference_geo", "metadata",
                 "service_tier", "speed", "user_profile_id", "workspace_id", "betas"});
  if (!dropped->empty()) {
    LogWarning("/v1/messages: left out tools that this server does not run: {}",
               Quote(fmt::format("{}", fmt::join(*dropped, ", "))));
  }
  return task;
}

void ReadSampling(Fields& fields, GenerationRequest* request) {
  SamplingParams& sampling = request->sampling;
  sampling.temperature = fields.Number("temperature", 0, 2).value_or(1);
  sampling.top_p =
      std::max(fields.Number("top_p", 0, 1).value_or(1), std::numeric_limits<double>::min());
  sampling.top_k = static_cast<int32_t>(fields.Integer("top_k", 0, INT32_MAX).value_or(0));
  sampling.seed = RandomSeed();
  request->stop = fields.Strings("stop_sequences", kMaxStops);
  for (const std::string& stop : request->stop) {
    if (stop.empty()) fields.Bad("stop_sequences", "expected strings that are not empty");
  }
  request->max_tokens = fields.Integer("max_tokens", 1, INT32_MAX);
  if (!request->max_tokens) fields.Bad("max_tokens", "this field is required");
}

}  // namespace

void HandleMessages(const api::Context& context, const http::Request& request,
                    std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model = context.Select(request, fields.RequiredString("model"));
  MessageAnswer::Details details;
  api::ChatTask task = ReadPrompt(fields, &details.dropped);
  ReadSampling(fields, &task.request);
  api::SetOwner(request, &task.request);
  const bool stream = fields.Bool("stream").value_or(false);
  fields.Finish();

  api::PreparedChat prepared = api::PrepareChat(*model, task);
  details.prompt_tokens = static_cast<int64_t>(prepared.requests[0].prompt.size());
  details.cut_short = api::FitMaxTokens(*model, &prepared.requests);
  api::ChatAnswerOptions options{.model = model,
                                 .stream = stream,
                                 .parsing = std::move(prepared.parsing),
                                 .one_call = prepared.one_call,
                                 .call_prefix = "toolu_",
                                 .begun = std::move(prepared.begun)};
  const auto answer =
      std::make_shared<MessageAnswer>(std::move(options), std::move(details), std::move(responder));
  answer->StartInForm(model, std::move(prepared.requests), prepared.form, request);
}

void HandleCountTokens(const api::Context& context, const http::Request& request,
                       std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model = context.Select(request, fields.RequiredString("model"));
  std::vector<std::string> dropped;
  const api::ChatTask task = ReadPrompt(fields, &dropped);
  // What a message has beside its prompt is taken and has no effect.
  fields.Ignore({"max_tokens", "stop_sequences", "stream", "temperature", "top_k", "top_p"});
  fields.Finish();
  const api::PreparedChat prepared = api::PrepareChat(*model, task);
  responder->Send(
      {.headers = {}, .body = api::Dump({{"input_tokens", prepared.requests[0].prompt.size()}})});
}

}  // namespace bakestone::anthropic
