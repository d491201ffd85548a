#include "server/anthropic/message_reader.h"

#include <utility>

#include <fmt/format.h>

#include "server/api/answer.h"
#include "server/api/api_error.h"
#include "server/api/tools.h"

namespace bakestone::anthropic {
namespace {

using api::BadField;
using api::Fields;

constexpr size_t kMaxMessages = 8192;

// An agent puts a line with a number that changes with every request before its system text; it
// means nothing to a model, and with it no two prompts would begin alike.
constexpr std::string_view kBillingHeader = "x-anthropic-billing-header:";

std::string WithoutBillingHeader(std::string text) {
  if (!text.starts_with(kBillingHeader)) return text;
  const size_t end = text.find('\n');
  return end == std::string::npos ? "" : text.substr(end + 1);
}

std::string BlockText(const Json& json, const std::string& where, const std::string& param) {
  if (!json.is_object()) BadField(param, where + " expected an object");
  Fields block(json, where, param);
  const std::string type = block.RequiredString("type");
  if (type != "text") {
    block.Unsupported("type", fmt::format("blocks of type '{}' are not supported here, only text",
                                          type.substr(0, 60)));
  }
  std::string text = block.RequiredString("text");
  block.Ignore({"cache_control", "citations"});
  block.Finish();
  return text;
}

// A string, or a list of text blocks.
std::string TextOf(const Json& content, const std::string& where, const std::string& param) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) BadField(param, where + " expected a string or a list of text blocks");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    std::string piece =
        WithoutBillingHeader(BlockText(content[i], fmt::format("{}[{}].", where, i), param));
    if (!text.empty() && !piece.empty()) text += '\n';
    text += piece;
  }
  return text;
}

class MessageReader {
 public:
  explicit MessageReader(Json* messages) : messages_(*messages) {}
  void Read(const Json& json, const std::string& where);

 private:
  void ReadUserBlock(const Json& json, const std::string& where);
  void ReadAssistantBlock(const Json& json, const std::string& where, Json* message);
  void ReadToolResult(Fields& block, const std::string& where);
  void AddUserText(const std::string& text);

  Json& messages_;
  bool joins_ = false;  // text goes on in the user's message that the last block began
};

void MessageReader::AddUserText(const std::string& text) {
  if (joins_) {
    messages_.back()["content"].get_ref<std::string&>() += "\n" + text;
  } else {
    messages_.push_back({{"role", "user"}, {"content", text}});
  }
  joins_ = true;
}

void MessageReader::ReadToolResult(Fields& block, const std::string& where) {
  const std::string id = block.RequiredString("tool_use_id");
  const Json* content = block.Find("content");
  std::string text = content ? TextOf(*content, where + "content", "messages") : "";
  if (block.Bool("is_error").value_or(false)) text = "Error: " + text;
  messages_.push_back({{"role", "tool"}, {"content", std::move(text)}, {"tool_call_id", id}});
  block.Ignore({"cache_control", "toolset_name"});
  joins_ = false;
}

void MessageReader::ReadUserBlock(const Json& json, const std::string& where) {
  if (!json.is_object()) BadField("messages", where + " expected an object");
  Fields block(json, where, "messages");
  const std::string type = block.RequiredString("type");
  if (type == "text") {
    AddUserText(BlockText(json, where, "messages"));
  } else if (type == "tool_result") {
    ReadToolResult(block, where);
    block.Finish();
  } else {
    block.Unsupported(
        "type",
        fmt::format("blocks of type '{}' are not supported; a user's are text and tool_result",
                    type.substr(0, 60)));
  }
}

void MessageReader::ReadAssistantBlock(const Json& json, const std::string& where, Json* message) {
  if (!json.is_object()) BadField("messages", where + " expected an object");
  Fields block(json, where, "messages");
  const std::string type = block.RequiredString("type");
  const auto append = [&](const char* key, const std::string& text) {
    Json& all = (*message)[key];
    all = all.is_string() ? all.get<std::string>() + text : text;
  };
  if (type == "text") {
    append("content", BlockText(json, where, "messages"));
  } else if (type == "thinking") {
    append("reasoning_content", block.RequiredString("thinking"));
  } else if (type == "tool_use") {
    const Json* input = block.Object("input");
    Json function = {{"name", block.RequiredString("name")},
                     {"arguments", input ? api::Dump(*input) : "{}"}};
    (*message)["tool_calls"].push_back({{"id", block.RequiredString("id")},
                                        {"type", "function"},
                                        {"function", std::move(function)}});
  } else if (type != "redacted_thinking") {  // nobody but its author can read that
    block.Unsupported(
        "type",
        fmt::format(
            "blocks of type '{}' are not supported; an assistant's are text, thinking and tool_use",
            type.substr(0, 60)));
  }
}

void MessageReader::Read(const Json& json, const std::string& where) {
  if (!json.is_object()) BadField("messages", where + " expected an object");
  Fields message(json, where + ".", "messages");
  const std::string role = message.RequiredString("role");
  const Json* content = message.Find("content");
  if (role != "user" && role != "assistant" && role != "system") {
    message.Bad("role", "expected user or assistant");
  }
  if (!content || !(content->is_string() || content->is_array())) {
    message.Bad("content", "expected a string or a list of blocks");
  }
  message.Finish();
  joins_ = false;
  if (role == "system") {
    messages_.push_back(
        {{"role", "system"}, {"content", TextOf(*content, where + ".content", "messages")}});
  } else if (content->is_string()) {
    messages_.push_back({{"role", role}, {"content", *content}});
  } else if (role == "user") {
    for (size_t i = 0; i < content->size(); ++i) {
      ReadUserBlock((*content)[i], fmt::format("{}.content[{}].", where, i));
    }
  } else {
    Json assistant = {{"role", "assistant"}, {"content", ""}};
    for (size_t i = 0; i < content->size(); ++i) {
      ReadAssistantBlock((*content)[i], fmt::format("{}.content[{}].", where, i), &assistant);
    }
    messages_.push_back(std::move(assistant));
  }
}

void ReadToolChoice(Fields& fields, api::ChatTask* task) {
  const Json* json = fields.Object("tool_choice");
  if (!json) return;
  Fields choice(*json, "tool_choice.", "tool_choice");
  const std::string type = choice.RequiredString("type");
  if (type == "tool") {
    task->tool_choice = {api::ToolChoice::kNamed, choice.RequiredString("name")};
  } else if (type == "any") {
    task->tool_choice.kind = api::ToolChoice::kRequired;
  } else if (type == "none") {
    task->tool_choice.kind = api::ToolChoice::kNone;
  } else if (type != "auto") {
    choice.Bad("type", "expected auto, any, tool or none");
  }
  task->parallel_calls = !choice.Bool("disable_parallel_tool_use").value_or(false);
  choice.Finish();
  api::CheckToolChoice(fields, *task);
}

}  // namespace

void ReadConversation(Fields& fields, api::ChatTask* task) {
  if (const Json* system = fields.Find("system")) {
    std::string text = WithoutBillingHeader(TextOf(*system, "system", "system"));
    if (!text.empty()) task->messages.push_back({{"role", "system"}, {"content", std::move(text)}});
  }
  const Json* messages = fields.Find("messages");
  if (!messages || !messages->is_array() || messages->empty() || messages->size() > kMaxMessages) {
    fields.Bad("messages", fmt::format("expected a list of 1 to {} messages", kMaxMessages));
  }
  const size_t before = task->messages.size();
  MessageReader reader(&task->messages);
  for (size_t i = 0; i < messages->size(); ++i) {
    reader.Read((*messages)[i], fmt::format("messages[{}]", i));
  }
  if (task->messages.size() == before) {
    fields.Bad("messages", "expected something said, found no blocks");
  }
  const Json& last = task->messages.back();
  task->continue_last = last["role"] == "assistant" && !last.contains("tool_calls") &&
                        !last.contains("reasoning_content");
}

void ReadTools(Fields& fields, api::ChatTask* task, std::vector<std::string>* dropped) {
  api::ReadToolList(fields, task, "input_schema",
                    [&](const Json& json, const std::string& where) -> std::optional<Json> {
                      Fields tool(json, where, "tools");
                      const std::string type = tool.String("type").value_or("custom");
                      if (type != "custom") {
                        dropped->push_back(type.substr(0, 60));
                        return std::nullopt;
                      }
                      Json function = {{"name", api::RequiredToolName(tool)}};
                      const Json* schema = tool.Object("input_schema");
                      if (!schema) tool.Bad("input_schema", "this field is required");
                      if (const auto description = tool.String("description")) {
                        function["description"] = *description;
                      }
                      function["parameters"] = *schema;
                      if (tool.Bool("strict").value_or(false)) function["strict"] = true;
                      tool.Ignore({"cache_control", "allowed_callers", "defer_loading",
                                   "eager_input_streaming", "input_examples"});
                      tool.Finish();
                      return function;
                    });
  ReadToolChoice(fields, task);
}

}  // namespace bakestone::anthropic
