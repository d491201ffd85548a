#include "server/openai/chat_messages.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"
#include "server/api/tools.h"

namespace bakestone::openai {
namespace {

using api::BadField;
using api::Fields;
using api::UnsupportedField;

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxCalls = 256;

// The calls of an assistant's message.
Json ReadCalls(const Json& calls, const std::string& where) {
  if (!calls.is_array() || calls.size() > kMaxCalls) {
    BadField("messages",
             fmt::format("{}tool_calls: expected a list of at most {} calls", where, kMaxCalls));
  }
  Json result = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string place = fmt::format("{}tool_calls[{}].", where, i);
    if (!calls[i].is_object()) BadField("messages", place + " expected an object");
    Fields call(calls[i], place, "messages");
    call.Only("type", "function", "only function calls are known");
    const std::string id = call.RequiredString("id");
    const Json* function = call.Object("function");
    if (!function) call.Bad("function", "this field is required");
    call.Ignore({"index", "provider_specific_fields", "extra_content"});
    call.Finish();
    Fields inner(*function, place + "function.", "messages");
    const std::string name = inner.RequiredString("name");
    const std::string arguments = inner.String("arguments").value_or("{}");
    inner.Finish();
    result.push_back({{"id", id},
                      {"type", "function"},
                      {"function", {{"name", name}, {"arguments", arguments}}}});
  }
  return result;
}

Json ReadAssistant(Fields& message, const std::string& where) {
  Json result = {{"role", "assistant"}, {"content", ""}};
  const Json* calls = message.Find("tool_calls");
  const bool has_calls = calls && !(calls->is_array() && calls->empty());
  if (message.Find("function_call")) {
    message.Unsupported("function_call", "use tool_calls, its newer name");
  }
  if (message.Find("audio")) message.Unsupported("audio", "only text is supported");
  const Json* content = message.Find("content");
  const auto refusal = message.String("refusal");
  if (content) {
    result["content"] = TextOfParts(*content, where, {"text", "refusal"});
  } else if (refusal) {
    result["content"] = *refusal;
  } else if (!has_calls) {
    message.Bad("content", "expected a string or a list of text parts, or tool_calls");
  }
  const auto reasoning = message.String("reasoning");
  const auto reasoning_content = message.String("reasoning_content");
  if (reasoning || reasoning_content) {
    result["reasoning_content"] = reasoning_content.value_or(reasoning.value_or(""));
  }
  if (has_calls) result["tool_calls"] = ReadCalls(*calls, where);
  // What clients keep of an answer and send back with it.
  message.Ignore({"name", "annotations", "reasoning_details", "provider_specific_fields", "images",
                  "thinking_blocks"});
  return result;
}

Json ReadMessage(const Json& json, const std::string& where) {
  if (!json.is_object()) {
    BadField("messages", where.substr(0, where.size() - 1) + ": expected an object");
  }
  Fields message(json, where, "messages");
  const std::string role = message.RequiredString("role");
  if (role == "assistant") {
    Json result = ReadAssistant(message, where);
    message.Finish();
    return result;
  }
  if (role == "function") {
    message.Unsupported("role", "function results come as role tool with a tool_call_id");
  }
  static const std::set<std::string> kRoles = {"system", "developer", "user", "tool"};
  if (!kRoles.contains(role)) {
    message.Bad("role", "expected system, developer, user, assistant or tool");
  }
  const Json* content = message.Find("content");
  if (!content) message.Bad("content", "expected a string or a list of text parts");
  Json result = {{"role", role}, {"content", TextOfParts(*content, where, {"text"})}};
  if (role == "tool") {
    result["tool_call_id"] = message.RequiredString("tool_call_id");
    if (const auto name = message.String("name")) result["name"] = *name;
  }
  message.Ignore({"name"});
  message.Finish();
  return result;
}

void ReadToolChoice(Fields& fields, api::ChatTask* task) {
  const Json* choice = fields.Find("tool_choice");
  if (!choice) return;
  if (choice->is_string()) {
    task->tool_choice.kind = api::ChoiceOfWord(fields, choice->get<std::string>());
  } else if (choice->is_object()) {
    Fields object(*choice, "tool_choice.", "tool_choice");
    object.Only("type", "function", "only functions can be named");
    const Json* function = object.Object("function");
    if (!function) object.Bad("function", "this field is required");
    object.Finish();
    Fields inner(*function, "tool_choice.function.", "tool_choice");
    task->tool_choice = {api::ToolChoice::kNamed, inner.RequiredString("name")};
    inner.Finish();
  } else {
    fields.Bad("tool_choice", "expected none, auto, required or an object that names a function");
  }
  api::CheckToolChoice(fields, *task);
}

}  // namespace

std::string TextOfParts(const Json& content, const std::string& where,
                        std::initializer_list<const char*> types, const std::string& param) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    BadField(param, fmt::format("{}content: expected a string or a list of text parts, found {}",
                                where, content.type_name()));
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string place = fmt::format("{}content[{}].", where, i);
    if (!part.is_object()) BadField(param, place + " expected an object");
    Fields fields(part, place, param);
    const std::string type = fields.RequiredString("type");
    if (std::find_if(types.begin(), types.end(),
                     [&](const char* known) { return type == known; }) == types.end()) {
      fields.Unsupported("type", fmt::format("parts of type '{}' are not supported, only text",
                                             type.substr(0, 40)));
    }
    text += fields.RequiredString(type == "refusal" ? "refusal" : "text");
    fields.Ignore({"cache_control", "annotations", "logprobs", "prompt_cache_breakpoint"});
    fields.Finish();
  }
  return text;
}

Json ReadMessages(Fields& fields) {
  const Json* messages = fields.Find("messages");
  if (!messages || !messages->is_array() || messages->empty() || messages->size() > kMaxMessages) {
    fields.Bad("messages", fmt::format("expected a list of 1 to {} messages", kMaxMessages));
  }
  Json result = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    result.push_back(ReadMessage((*messages)[i], fmt::format("messages[{}].", i)));
  }
  return result;
}

Json ReadFunction(const Json& json, const std::string& where, const std::string& param) {
  Fields function(json, where, param);
  Json result = {{"name", api::RequiredToolName(function)}};
  if (const auto description = function.String("description")) result["description"] = *description;
  if (const Json* parameters = function.Object("parameters")) result["parameters"] = *parameters;
  if (function.Bool("strict").value_or(false)) result["strict"] = true;
  function.Ignore({"type"});
  function.Finish();
  return result;
}

void ReadTools(Fields& fields, api::ChatTask* task) {
  for (const char* older : {"functions", "function_call"}) {
    const Json* found = fields.Find(older);
    const bool empty = found && ((found->is_array() && found->empty()) || *found == "none");
    if (found && !empty) fields.Unsupported(older, "use tools and tool_choice, its newer names");
  }
  api::ReadToolList(fields, task, "function.parameters",
                    [](const Json& json, const std::string& where) -> std::optional<Json> {
                      Fields tool(json, where, "tools");
                      tool.Only("type", "function", "only function tools are supported");
                      const Json* function = tool.Object("function");
                      if (!function) tool.Bad("function", "this field is required");
                      tool.Ignore({"cache_control"});
                      tool.Finish();
                      return ReadFunction(*function, where + "function.", "tools");
                    });
  ReadToolChoice(fields, task);
  task->parallel_calls = fields.Bool("parallel_tool_calls").value_or(true);
}

}  // namespace bakestone::openai
