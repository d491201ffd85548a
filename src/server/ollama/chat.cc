#include "server/ollama/chat.h"

#include <chrono>
#include <deque>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"
#include "server/api/chat_answer.h"
#include "server/ollama/models.h"
#include "server/ollama/options.h"
#include "server/openai/chat_messages.h"
#include "server/openai/logprobs.h"
#include "text/dialog/json_scanner.h"

namespace bakestone::ollama {
namespace {

using api::Fields;
using api::Json;

constexpr size_t kMaxMessages = 8192;

int64_t Nanoseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

// One answer; chat: in a message, else in response.
class OllamaAnswer : public api::ChatAnswer {
 public:
  struct Details {
    std::string model;  // as the client named it
    bool chat = true, logprobs = false;
  };
  OllamaAnswer(api::ChatAnswerOptions options, Details details,
               std::shared_ptr<http::Responder> responder)
      : ChatAnswer(std::move(options), std::move(responder)),
        details_(std::move(details)),
        start_(Clock::now()),
        first_(start_) {}

 private:
  void BeginStream() override {
    responder().Begin({.content_type = "application/x-ndjson", .headers = {}, .body = {}}, "");
  }

  Json Line(const std::string& text, const std::string& thinking, Json calls, Json logprobs) const {
    Json json = {{"model", details_.model}, {"created_at", Timestamp()}};
    Json message = {{"role", "assistant"}, {"content", text}};
    Json& place = details_.chat ? message : json;
    if (!details_.chat) json["response"] = text;
    if (!thinking.empty()) place["thinking"] = thinking;
    if (!calls.empty()) place["tool_calls"] = std::move(calls);
    if (details_.chat) json["message"] = std::move(message);
    if (details_.logprobs && !logprobs.empty()) json["logprobs"] = std::move(logprobs);
    json["done"] = false;
    return json;
  }
  // Those calls whose arguments are complete, or all that are left.
  Json EndedCalls(const dialog::ReplyDelta& delta, bool over) {
    const auto& calls = reply(0).calls;
    for (const dialog::CallDelta& call : delta.calls) {
      if (call.ends) ended_ = std::max(ended_, static_cast<size_t>(call.index) + 1);
    }
    if (over) ended_ = calls.size();
    Json result = Json::array();
    for (; told_ < ended_; ++told_) {
      Json arguments = dialog::ParseBounded(calls[told_].arguments);
      if (!arguments.is_object()) arguments = Json::object();
      result.push_back(
          {{"id", calls[told_].id},
           {"function",
            {{"index", told_}, {"name", calls[told_].name}, {"arguments", std::move(arguments)}}}});
    }
    return result;
  }

  void OnDelta(int64_t, const dialog::ReplyDelta& delta,
               const std::vector<TokenInfo>& tokens) override {
    if (!any_) first_ = Clock::now();
    any_ = true;
    if (!options().stream) return;
    Json calls = EndedCalls(delta, reply(0).finish.has_value());
    Json logprobs =
        details_.logprobs ? openai::TokenLogprobsJson(tokenizer(), tokens) : Json::array();
    if (delta.text.empty() && delta.reasoning.empty() && calls.empty() && logprobs.empty()) return;
    responder().Write(
        api::Dump(Line(delta.text, delta.reasoning, std::move(calls), std::move(logprobs))) + "\n");
  }

  void AddEnding(Json* json) const {
    const Clock::time_point now = Clock::now();
    const Usage usage = TotalUsage();
    (*json)["done"] = true;
    (*json)["done_reason"] = reply(0).finish == FinishReason::kLength ? "length" : "stop";
    (*json)["total_duration"] = Nanoseconds(now - start_);
    (*json)["load_duration"] = 0;
    (*json)["prompt_eval_count"] = usage.prompt_tokens;
    (*json)["prompt_eval_duration"] = Nanoseconds(first_ - start_);
    (*json)["eval_count"] = usage.completion_tokens;
    (*json)["eval_duration"] = Nanoseconds(now - first_);
  }
  void Complete() override {
    if (options().stream) {
      Json json = Line("", "", Json::array(), Json::array());
      AddEnding(&json);
      responder().Write(api::Dump(json) + "\n");
      responder().End();
      return;
    }
    const api::ChatReply& whole = reply(0);
    Json logprobs =
        details_.logprobs ? openai::TokenLogprobsJson(tokenizer(), whole.tokens) : Json::array();
    Json json = Line(whole.text, whole.reasoning, EndedCalls({}, true), std::move(logprobs));
    AddEnding(&json);
    responder().Send({.headers = {}, .body = api::Dump(json)});
  }
  void Fail(const Error& error) override {
    const api::ApiError api = api::FromError(error);
    if (!options().stream) {
      responder().Send(ToResponse(api, api::Family::kOllama));
      return;
    }
    responder().Write(ErrorBody(api, api::Family::kOllama) + "\n");
    responder().End();
  }

  const Details details_;
  const Clock::time_point start_;
  Clock::time_point first_;
  bool any_ = false;
  size_t ended_ = 0, told_ = 0;  // calls
};

// Ollama's calls have no ids of their own: a result belongs to the first call of its name that has
// none yet.
class MessageReader {
 public:
  explicit MessageReader(Json* messages) : messages_(*messages) {}
  void Read(const Json& json, const std::string& where);

 private:
  Json ReadCalls(Fields& message, const std::string& where);
  std::string TakeId(const std::optional<std::string>& given,
                     const std::optional<std::string>& name);

  Json& messages_;
  std::deque<std::pair<std::string, std::string>> waiting_;  // (id, name)
  int64_t calls_ = 0;
};

Json MessageReader::ReadCalls(Fields& message, const std::string& where) {
  const Json* calls = message.Find("tool_calls");
  Json result = Json::array();
  if (!calls) return result;
  if (!calls->is_array() || calls->size() > 256) {
    message.Bad("tool_calls", "expected a list of at most 256 calls");
  }
  for (size_t i = 0; i < calls->size(); ++i) {
    const std::string place = fmt::format("{}tool_calls[{}].", where, i);
    if (!(*calls)[i].is_object()) api::BadField("messages", place + " expected an object");
    Fields call((*calls)[i], place, "messages");
    const Json* function = call.Object("function");
    if (!function) call.Bad("function", "this field is required");
    const std::string id = call.String("id").value_or(fmt::format("call_{}", calls_));
    ++calls_;
    call.Ignore({"type"});
    call.Finish();
    Fields inner(*function, place + "function.", "messages");
    const std::string name = inner.RequiredString("name");
    const Json* arguments = inner.Object("arguments");
    inner.Ignore({"index", "description"});
    inner.Finish();
    waiting_.emplace_back(id, name);
    result.push_back(
        {{"id", id},
         {"type", "function"},
         {"function", {{"name", name}, {"arguments", arguments ? api::Dump(*arguments) : "{}"}}}});
  }
  return result;
}

std::string MessageReader::TakeId(const std::optional<std::string>& given,
                                  const std::optional<std::string>& name) {
  for (auto call = waiting_.begin(); call != waiting_.end(); ++call) {
    if (given ? call->first != *given : (name && call->second != *name)) continue;
    std::string id = call->first;
    waiting_.erase(call);
    return id;
  }
  return given.value_or("call_0");
}

void MessageReader::Read(const Json& json, const std::string& where) {
  if (!json.is_object()) api::BadField("messages", where + " expected an object");
  Fields message(json, where, "messages");
  const std::string role = message.RequiredString("role");
  if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
    message.Bad("role", "expected system, user, assistant or tool");
  }
  Json result = {{"role", role}, {"content", message.String("content").value_or("")}};
  const Json* images = message.Find("images");
  if (images && !images->empty()) message.Unsupported("images", "only text is supported");
  const auto thinking = message.String("thinking"), tool_name = message.String("tool_name"),
             id = message.String("tool_call_id");
  if (role == "assistant") {
    if (thinking) result["reasoning_content"] = *thinking;
    Json calls = ReadCalls(message, where);
    if (!calls.empty()) result["tool_calls"] = std::move(calls);
  }
  if (role == "tool") {
    result["tool_call_id"] = TakeId(id, tool_name);
    if (tool_name) result["name"] = *tool_name;
  }
  message.Ignore({"tool_calls", "name"});
  message.Finish();
  messages_.push_back(std::move(result));
}

// Ollama's way to ask for a model to be loaded: nothing to say. It is loaded.
void SendLoaded(const std::string& model, bool chat, http::Responder& responder) {
  Json json = {{"model", model}, {"created_at", Timestamp()}};
  if (chat) {
    json["message"] = {{"role", "assistant"}, {"content", ""}};
  } else {
    json["response"] = "";
  }
  json["done"] = true;
  json["done_reason"] = "load";
  responder.Send({.headers = {}, .body = api::Dump(json)});
}

struct Call {
  const http::Request& request;
  std::shared_ptr<http::Responder> responder;
  std::string name;
  api::ModelPtr model;
  bool stream = true, chat = true;
};

void Start(Call&& call, api::ChatTask&& task, api::PreparedChat&& prepared, bool raw) {
  for (GenerationRequest& request : prepared.requests) api::SetOwner(call.request, &request);
  api::FitMaxTokens(*call.model, &prepared.requests);
  api::ChatAnswerOptions options{.model = call.model,
                                 .stream = call.stream,
                                 .parsing = std::move(prepared.parsing),
                                 .one_call = prepared.one_call,
                                 .begun = std::move(prepared.begun),
                                 .raw = raw};
  OllamaAnswer::Details details{
      .model = call.name, .chat = call.chat, .logprobs = task.request.logprobs};
  const auto answer = std::make_shared<OllamaAnswer>(std::move(options), std::move(details),
                                                     std::move(call.responder));
  answer->StartInForm(call.model, std::move(prepared.requests), prepared.form, call.request);
}

}  // namespace

void HandleChat(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  Call call{.request = request,
            .responder = std::move(responder),
            .name = fields.RequiredString("model"),
            .model = nullptr};
  call.model = context.Select(request, ServedName(context, call.name));
  api::ChatTask task;
  const Json* messages = fields.Find("messages");
  if (messages && (!messages->is_array() || messages->size() > kMaxMessages)) {
    fields.Bad("messages", fmt::format("expected a list of at most {} messages", kMaxMessages));
  }
  MessageReader reader(&task.messages);
  for (size_t i = 0; messages && i < messages->size(); ++i) {
    reader.Read((*messages)[i], fmt::format("messages[{}].", i));
  }
  openai::ReadTools(fields, &task);
  ReadShared(fields, &task);
  call.stream = fields.Bool("stream").value_or(true);
  fields.Finish();
  if (task.messages.empty()) return SendLoaded(call.name, true, *call.responder);
  api::PreparedChat prepared = api::PrepareChat(*call.model, task);
  Start(std::move(call), std::move(task), std::move(prepared), false);
}

void HandleGenerate(const api::Context& context, const http::Request& request,
                    std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  Call call{.request = request,
            .responder = std::move(responder),
            .name = fields.RequiredString("model"),
            .model = nullptr,
            .chat = false};
  call.model = context.Select(request, ServedName(context, call.name));
  api::ChatTask task;
  const std::string prompt = fields.String("prompt").value_or("");
  const std::string system = fields.String("system").value_or("");
  const bool raw = fields.Bool("raw").value_or(false) || !call.model->chat;
  for (const char* name : {"suffix", "template", "context", "images"}) {
    const Json* found = fields.Find(name);
    const bool empty = !found || *found == "" || (found->is_array() && found->empty());
    if (!empty) fields.Unsupported(name, "this server does not do that");
  }
  fields.Ignore({"width", "height", "steps"});  // of images
  ReadShared(fields, &task);
  call.stream = fields.Bool("stream").value_or(true);
  fields.Finish();
  if (prompt.empty()) return SendLoaded(call.name, false, *call.responder);
  if (!system.empty()) task.messages.push_back({{"role", "system"}, {"content", system}});
  task.messages.push_back({{"role", "user"}, {"content", prompt}});
  api::PreparedChat prepared;
  if (raw) {
    prepared.requests = {task.request};
    prepared.requests[0].prompt = call.model->model().tokenizer.Encode(prompt);
    prepared.requests[0].adapter = call.model->adapter();
    prepared.form = task.form;
  } else {
    prepared = api::PrepareChat(*call.model, task);
  }
  Start(std::move(call), std::move(task), std::move(prepared), raw);
}

}  // namespace bakestone::ollama
