#include "server/openai/response_items.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"
#include "server/api/tools.h"
#include "server/openai/chat_messages.h"

namespace bakestone::openai {
namespace {

using api::BadField;
using api::Fields;

constexpr size_t kMaxItems = 8192;

class InputReader {
 public:
  explicit InputReader(Json* messages) : messages_(*messages) {}
  void Read(const Json& item, const std::string& where);

 private:
  void ReadMessage(Fields& item, const std::string& where);
  void ReadReasoning(Fields& item, const std::string& where);
  void ReadCall(Fields& item);
  void ReadCallOutput(Fields& item, const std::string& where);
  bool AfterAssistant() const {
    return !messages_.empty() && messages_.back()["role"] == "assistant";
  }
  Json& NewAssistant() {
    messages_.push_back({{"role", "assistant"}, {"content", ""}});
    return messages_.back();
  }

  Json& messages_;
};

void InputReader::Read(const Json& json, const std::string& where) {
  if (!json.is_object()) {
    BadField("input", where.substr(0, where.size() - 1) + ": expected an object");
  }
  Fields item(json, where, "input");
  const std::string type = item.String("type").value_or("message");
  if (type == "message") {
    ReadMessage(item, where);
  } else if (type == "reasoning") {
    ReadReasoning(item, where);
  } else if (type == "function_call") {
    ReadCall(item);
  } else if (type == "function_call_output") {
    ReadCallOutput(item, where);
  } else {
    item.Unsupported(
        "type",
        fmt::format(
            "items of type '{}' are not supported; known are message, reasoning, function_call "
            "and function_call_output",
            type.substr(0, 60)));
  }
  item.Ignore({"id", "status"});
  item.Finish();
}

void InputReader::ReadMessage(Fields& item, const std::string& where) {
  const std::string role = item.RequiredString("role");
  static const std::set<std::string> kRoles = {"system", "developer", "user", "assistant"};
  if (!kRoles.contains(role)) item.Bad("role", "expected system, developer, user or assistant");
  const Json* content = item.Find("content");
  if (!content) item.Bad("content", "expected a string or a list of text parts");
  std::string text =
      TextOfParts(*content, where, {"input_text", "output_text", "text", "refusal"}, "input");
  item.Ignore({"phase"});
  if (role != "assistant") {
    messages_.push_back({{"role", role}, {"content", std::move(text)}});
    return;
  }
  const bool joins = AfterAssistant() && messages_.back()["content"] == "" &&
                     !messages_.back().contains("tool_calls");
  Json& message = joins ? messages_.back() : NewAssistant();
  message["content"] = std::move(text);
}

void InputReader::ReadReasoning(Fields& item, const std::string& where) {
  std::string text;
  for (const char* field : {"content", "summary"}) {
    const Json* parts = item.Find(field);
    if (!parts || !text.empty()) continue;
    text = TextOfParts(*parts, where, {"reasoning_text", "summary_text", "text"}, "input");
  }
  item.Ignore({"encrypted_content"});
  if (!text.empty()) NewAssistant()["reasoning_content"] = std::move(text);
}

void InputReader::ReadCall(Fields& item) {
  Json call = {{"id", item.RequiredString("call_id")}, {"type", "function"}, {"function", {}}};
  call["function"] = {{"name", item.RequiredString("name")},
                      {"arguments", item.String("arguments").value_or("{}")}};
  item.Ignore({"caller", "namespace", "async"});
  Json& message = AfterAssistant() ? messages_.back() : NewAssistant();
  message["tool_calls"].push_back(std::move(call));
}

void InputReader::ReadCallOutput(Fields& item, const std::string& where) {
  const std::string id = item.RequiredString("call_id");
  const Json* output = item.Find("output");
  if (!output) item.Bad("output", "expected a string or a list of text parts");
  std::string text = TextOfParts(*output, where, {"input_text", "output_text", "text"}, "input");
  messages_.push_back({{"role", "tool"}, {"content", std::move(text)}, {"tool_call_id", id}});
  item.Ignore({"caller", "name", "namespace"});
}

void DropAllBut(const std::set<std::string>& names, Json* tools) {
  Json kept = Json::array();
  for (Json& tool : *tools) {
    if (names.contains(tool["function"]["name"].get<std::string>())) {
      kept.push_back(std::move(tool));
    }
  }
  *tools = std::move(kept);
}

void ReadChoiceObject(const Json& json, api::ChatTask* task) {
  Fields choice(json, "tool_choice.", "tool_choice");
  const std::string type = choice.RequiredString("type");
  if (type == "function") {
    task->tool_choice = {api::ToolChoice::kNamed, choice.RequiredString("name")};
  } else if (type == "allowed_tools") {
    const std::string mode = choice.String("mode").value_or("auto");
    if (mode != "auto" && mode != "required") choice.Bad("mode", "expected auto or required");
    const Json* tools = choice.Find("tools");
    if (!tools || !tools->is_array()) choice.Bad("tools", "expected a list of tools");
    std::set<std::string> names;
    for (const Json& tool : *tools) {
      if (tool.is_object() && tool.value("name", Json()).is_string()) {
        names.insert(tool["name"].get<std::string>());
      }
    }
    DropAllBut(names, &task->tools);
    task->tool_choice.kind = mode == "auto" ? api::ToolChoice::kAuto : api::ToolChoice::kRequired;
  } else {
    choice.Unsupported(
        "type",
        fmt::format("'{}' is not a tool of this server; function and allowed_tools are known",
                    type.substr(0, 60)));
  }
  choice.Finish();
}

void ReadResponseToolChoice(Fields& fields, api::ChatTask* task) {
  const Json* choice = fields.Find("tool_choice");
  if (!choice) return;
  if (choice->is_object()) {
    ReadChoiceObject(*choice, task);
  } else {
    task->tool_choice.kind = api::ChoiceOfWord(fields, *fields.String("tool_choice"));
  }
  api::CheckToolChoice(fields, *task);
}

}  // namespace

void ReadInput(Fields& fields, Json* messages) {
  const Json* input = fields.Find("input");
  if (input && input->is_string()) {
    messages->push_back({{"role", "user"}, {"content", *input}});
    return;
  }
  if (!input || !input->is_array() || input->empty() || input->size() > kMaxItems) {
    fields.Bad("input", fmt::format("expected a string or a list of 1 to {} items", kMaxItems));
  }
  InputReader reader(messages);
  for (size_t i = 0; i < input->size(); ++i) reader.Read((*input)[i], fmt::format("input[{}].", i));
}

void ReadResponseTools(Fields& fields, api::ChatTask* task, std::vector<std::string>* dropped) {
  api::ReadToolList(fields, task, "parameters",
                    [&](const Json& json, const std::string& where) -> std::optional<Json> {
                      Json tool = json;
                      if (!tool.value("type", Json()).is_string()) {
                        BadField("tools", where + "type: expected an object with a type");
                      }
                      if (tool["type"] != "function") {
                        dropped->push_back(tool["type"].get<std::string>().substr(0, 60));
                        return std::nullopt;
                      }
                      for (const char* without_effect :
                           {"allowed_callers", "defer_loading", "output_schema", "async"}) {
                        tool.erase(without_effect);
                      }
                      return ReadFunction(tool, where, "tools");
                    });
  ReadResponseToolChoice(fields, task);
  task->parallel_calls = fields.Bool("parallel_tool_calls").value_or(true);
}

}  // namespace bakestone::openai
