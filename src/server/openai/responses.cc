#include "server/openai/responses.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/quote.h"
#include "server/api/api_error.h"
#include "server/api/chat_answer.h"
#include "server/openai/generation_fields.h"
#include "server/openai/logprobs.h"
#include "server/openai/response_items.h"
#include "server/openai/response_output.h"

namespace bakestone::openai {
namespace {

using api::Fields;

constexpr const char* kLogprobs = "message.output_text.logprobs";

// What a request says beside its conversation, and how its answer repeats it.
struct ResponseFields {
  Json shown = Json::object();  // the answer's fields that only repeat the request
  std::string tenant;
  bool store = true;
  std::vector<std::string> dropped;  // types of tools that were left out
  Json history = Json::array();      // the conversation without instructions: what an id stands for
};

class ResponsesAnswer : public api::ChatAnswer {
 public:
  ResponsesAnswer(api::ChatAnswerOptions options, ResponseFields fields,
                  std::shared_ptr<api::ConversationStore> conversations,
                  std::shared_ptr<http::Responder> responder)
      : ChatAnswer(std::move(options), std::move(responder)),
        fields_(std::move(fields)),
        conversations_(std::move(conversations)),
        id_(api::MakeId("resp_")),
        created_(api::UnixTime()),
        output_([this](const std::string& type, Json event) { Emit(type, std::move(event)); }) {}

 private:
  http::Response Head(const char* type) const {
    http::Response head{.content_type = type, .headers = {}, .body = {}};
    if (!fields_.dropped.empty()) {
      head.headers.emplace_back(
          "X-Bakestone-Warning",
          fmt::format("{} tools of a kind that this server does not run were left out",
                      fields_.dropped.size()));
    }
    return head;
  }
  void Emit(const std::string& type, Json event) {
    if (!options().stream) return;
    Json json = {{"type", type}, {"sequence_number", sequence_++}};
    json.update(event);
    responder().Write(api::SseEvent(type, json));
  }

  Json UsageJson() const {
    const Usage usage = TotalUsage();
    return {{"input_tokens", usage.prompt_tokens},
            {"input_tokens_details",
             {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}}},
            {"output_tokens", usage.completion_tokens},
            {"output_tokens_details", {{"reasoning_tokens", ReasoningTokens()}}},
            {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
  }
  Json Whole(const char* status) const {
    const bool over = std::string_view(status) != "in_progress";
    Json json = {{"id", id_}, {"object", "response"}, {"created_at", created_}, {"status", status}};
    json["completed_at"] = over ? Json(api::UnixTime()) : Json(nullptr);
    json["error"] = nullptr;
    json["incomplete_details"] = nullptr;
    json["output"] = over ? output_.items() : Json::array();
    json.update(fields_.shown);
    json["usage"] = over ? UsageJson() : Json(nullptr);
    return json;
  }

  void BeginStream() override {
    responder().Begin(Head(api::kEventStream), ": ping\n\n");
    Emit("response.created", {{"response", Whole("in_progress")}});
    Emit("response.in_progress", {{"response", Whole("in_progress")}});
  }
  void OnDelta(int64_t, const dialog::ReplyDelta& delta,
               const std::vector<TokenInfo>& tokens) override {
    for (Json& entry : TokenLogprobsJson(tokenizer(), tokens)) untold_.push_back(std::move(entry));
    output_.Add(delta, reply(0), delta.text.empty() ? Json::array() : untold_);
    if (!delta.empty()) untold_ = Json::array();
  }
  void Complete() override {
    const bool complete = reply(0).finish != FinishReason::kLength;
    output_.Finish(complete);
    Json json = Whole(complete ? "completed" : "incomplete");
    if (!complete) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    Store(json);
    if (!options().stream) {
      http::Response response = Head("application/json");
      response.body = api::Dump(json);
      responder().Send(std::move(response));
      return;
    }
    Emit(complete ? "response.completed" : "response.incomplete", {{"response", std::move(json)}});
    responder().End();
  }
  void Fail(const Error& error) override {
    const api::ApiError api = api::FromError(error);
    if (!options().stream) {
      responder().Send(ToResponse(api, api::Family::kOpenAi));
      return;
    }
    output_.Finish(false);
    Json json = Whole("failed");
    json["error"] = {{"code", "server_error"}, {"message", api.message}};
    Emit("response.failed", {{"response", std::move(json)}});
    responder().End();
  }

  void Store(const Json& answer) {
    const auto finish = reply(0).finish;
    if (!fields_.store || (finish != FinishReason::kStop && finish != FinishReason::kLength)) {
      return;
    }
    const api::ChatReply& said = reply(0);
    Json message = {{"role", "assistant"}, {"content", said.text}};
    if (!said.reasoning.empty()) message["reasoning_content"] = said.reasoning;
    for (const api::ToolCall& call : said.calls) {
      message["tool_calls"].push_back(
          {{"id", call.id},
           {"type", "function"},
           {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    fields_.history.push_back(std::move(message));
    conversations_->Put(fields_.tenant, id_, {std::move(fields_.history), answer});
  }

  ResponseFields fields_;
  const std::shared_ptr<api::ConversationStore> conversations_;  // may outlive the router
  const std::string id_;
  const int64_t created_;
  int64_t sequence_ = 0;
  Json untold_ = Json::array();  // log-probabilities of tokens whose text is still to come
  ResponseOutput output_;
};

[[noreturn]] void NoSuchResponse(const std::string& id, int status, const char* param) {
  api::ApiError error;
  error.status = status;
  error.message = fmt::format(
      "there is no response '{}' here: answers are kept in memory only, the oldest are forgotten, "
      "and none is kept with \"store\": false; send the whole conversation as input",
      id.substr(0, 100));
  error.param = param;
  error.code = "previous_response_not_found";
  throw error;
}

void ReadConversation(Fields& fields, const api::Context& context, api::ChatTask* task,
                      ResponseFields* response) {
  const auto previous = fields.String("previous_response_id");
  if (previous) {
    auto stored = context.conversations->Get(response->tenant, *previous);
    if (!stored) NoSuchResponse(*previous, 400, "previous_response_id");
    response->history = std::move(stored->messages);
  }
  ReadInput(fields, &response->history);
  if (response->history.empty()) {
    fields.Bad("input", "expected something said: a message or the result of a call");
  }
  const auto instructions = fields.String("instructions");
  if (instructions) task->messages.push_back({{"role", "system"}, {"content", *instructions}});
  for (const Json& message : response->history) task->messages.push_back(message);
  response->shown["previous_response_id"] = previous ? Json(*previous) : Json(nullptr);
  response->shown["instructions"] = instructions ? Json(*instructions) : Json(nullptr);
}

void ReadInclude(Fields& fields, api::ChatTask* task) {
  // Of parts that an answer here never has, but for the first.
  static constexpr std::array kKnown = {kLogprobs,
                                        "reasoning.encrypted_content",
                                        "web_search_call.action.sources",
                                        "web_search_call.results",
                                        "file_search_call.results",
                                        "code_interpreter_call.outputs",
                                        "computer_call_output.output.image_url",
                                        "message.input_image.image_url"};
  for (const std::string& name : fields.Strings("include", 32)) {
    if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) {
      fields.Bad("include", fmt::format("'{}' is not known", name.substr(0, 60)));
    }
    task->request.logprobs |= name == kLogprobs;
  }
  task->request.top_logprobs =
      static_cast<int32_t>(fields.Integer("top_logprobs", 0, 20).value_or(0));
  task->request.logprobs |= task->request.top_logprobs > 0;
}

void ReadReasoning(Fields& fields, api::ChatTask* task) {
  const Json* reasoning = fields.Object("reasoning");
  if (!reasoning) return;
  Fields inner(*reasoning, "reasoning.", "reasoning");
  task->effort = inner.String("effort");
  static constexpr std::array kEfforts = {"none", "minimal", "low", "medium",
                                          "high", "xhigh",   "max"};
  if (task->effort &&
      std::find(kEfforts.begin(), kEfforts.end(), *task->effort) == kEfforts.end()) {
    inner.Bad("effort", "expected none, minimal, low, medium, high, xhigh or max");
  }
  inner.Ignore({"summary", "generate_summary", "context", "mode"});  // reasoning is shown as it is
  inner.Finish();
}

void ReadText(Fields& fields, api::ChatTask* task) {
  const Json* text = fields.Object("text");
  if (!text) return;
  Fields inner(*text, "text.", "text");
  if (const Json* format = inner.Find("format")) {
    task->form = api::ReadFormat(*format, "text", false);
  }
  inner.Only("verbosity", "medium", "how long an answer is, is for the prompt to say");
  inner.Finish();
}

void RefuseUnsupported(Fields& fields) {
  fields.Only("background", false, "answers are not computed in the background");
  for (const char* name : {"conversation", "prompt", "moderation"}) {
    if (fields.Find(name)) {
      fields.Unsupported(
          name, "this server does not keep such objects; send what it stands for as input");
    }
  }
  const auto truncation = fields.String("truncation");
  if (truncation && *truncation != "auto" && *truncation != "disabled") {
    fields.Bad("truncation", "expected auto or disabled");
  }
  // Without effect: nothing is truncated or compacted here; a conversation that is too long is an
  // error.
  fields.Ignore({"context_management", "max_tool_calls", "access_programs", "background_options",
                 "image", "prompt_cache_options", "client_metadata"});
}

// The request's fields as the answer repeats them.
void Repeat(const Json& body, const api::ChatTask& task, const std::string& model, Json* shown) {
  const auto given = [&](const char* name, Json otherwise) {
    const auto found = body.find(name);
    return found == body.end() || found->is_null() ? otherwise : *found;
  };
  (*shown)["background"] = false;
  (*shown)["max_output_tokens"] = given("max_output_tokens", nullptr);
  (*shown)["max_tool_calls"] = given("max_tool_calls", nullptr);
  (*shown)["metadata"] = given("metadata", Json::object());
  (*shown)["model"] = model;
  (*shown)["parallel_tool_calls"] = task.parallel_calls;
  (*shown)["reasoning"] = {{"effort", task.effort ? Json(*task.effort) : Json(nullptr)},
                           {"summary", nullptr}};
  (*shown)["service_tier"] = task.request.background ? "flex" : "default";
  (*shown)["store"] = given("store", true);
  (*shown)["temperature"] = task.request.sampling.temperature;
  (*shown)["text"] = {{"format", {{"type", "text"}}}, {"verbosity", "medium"}};
  if (task.form) (*shown)["text"]["format"] = body["text"]["format"];
  (*shown)["tool_choice"] = given("tool_choice", "auto");
  (*shown)["tools"] = Json::array();
  for (const Json& tool : task.tools) {
    Json flat = {{"type", "function"},
                 {"name", nullptr},
                 {"description", nullptr},
                 {"parameters", nullptr},
                 {"strict", false}};
    flat.update(tool["function"]);
    (*shown)["tools"].push_back(std::move(flat));
  }
  (*shown)["top_logprobs"] = task.request.top_logprobs;
  (*shown)["top_p"] = task.request.sampling.top_p;
  (*shown)["truncation"] = given("truncation", "disabled");
  (*shown)["user"] = given("user", nullptr);
}

std::string IdOf(const http::Request& request) {
  return request.path.substr(std::string_view("/v1/responses/").size());
}

}  // namespace

void HandleResponses(const api::Context& context, const http::Request& request,
                     std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model = context.Select(request, fields.RequiredString("model"));
  api::ChatTask task;
  ResponseFields response;
  response.tenant = request.tenant();
  ReadConversation(fields, context, &task, &response);
  ReadResponseTools(fields, &task, &response.dropped);
  GenerationFields generation = ReadGenerationFields(fields, model->model().tokenizer);
  if (generation.n != 1) fields.Unsupported("n", "a response is one answer");
  task.request = std::move(generation.request);
  api::SetOwner(request, &task.request);
  task.request.max_tokens = fields.Integer("max_output_tokens", 1, INT32_MAX);
  ReadInclude(fields, &task);
  ReadReasoning(fields, &task);
  ReadText(fields, &task);
  RefuseUnsupported(fields);
  response.store = fields.Bool("store").value_or(true);
  fields.Finish();
  if (!response.dropped.empty()) {
    LogWarning("/v1/responses: left out tools that this server does not run: {}",
               Quote(fmt::format("{}", fmt::join(response.dropped, ", "))));
  }

  Repeat(body, task, model->served.id, &response.shown);
  api::PreparedChat prepared = api::PrepareChat(*model, task);
  api::ChatAnswerOptions options{.model = model,
                                 .stream = generation.stream,
                                 .parsing = std::move(prepared.parsing),
                                 .one_call = prepared.one_call,
                                 .begun = std::move(prepared.begun)};
  const auto answer = std::make_shared<ResponsesAnswer>(
      std::move(options), std::move(response), context.conversations, std::move(responder));
  answer->StartInForm(model, std::move(prepared.requests), prepared.form, request);
}

void HandleGetResponse(const api::Context& context, const http::Request& request,
                       std::shared_ptr<http::Responder> responder) {
  const auto stored = context.conversations->Get(request.tenant(), IdOf(request));
  if (!stored) NoSuchResponse(IdOf(request), 404, "response_id");
  responder->Send({.headers = {}, .body = api::Dump(stored->answer)});
}

void HandleDeleteResponse(const api::Context& context, const http::Request& request,
                          std::shared_ptr<http::Responder> responder) {
  const std::string id = IdOf(request);
  if (!context.conversations->Remove(request.tenant(), id)) NoSuchResponse(id, 404, "response_id");
  responder->Send(
      {.headers = {}, .body = api::Dump({{"id", id}, {"object", "response"}, {"deleted", true}})});
}

}  // namespace bakestone::openai
