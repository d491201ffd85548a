#include "data/row.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"
#include "data/byte_source.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<RowFormat, std::string_view> kFormats[] = {
    {RowFormat::kAuto, "auto"},
    {RowFormat::kText, "text"},
    {RowFormat::kMessages, "messages"},
    {RowFormat::kShareGpt, "sharegpt"},
    {RowFormat::kAlpaca, "alpaca"},
    {RowFormat::kPromptCompletion, "prompt_completion"},
    {RowFormat::kPreference, "preference"},
};

// What these have, but for those of messages.
constexpr std::string_view kFields[] = {"text",   "messages",    "tools",  "conversations",
                                        "system", "instruction", "input",  "output",
                                        "prompt", "completion",  "chosen", "rejected"};

// Deeper is no data set, and what walks JSON by recursion must not be led down a well.
constexpr int kMaxDepth = 64;

void CheckDepth(std::string_view json) {
  if (!NestsDeeper(json, kMaxDepth)) return;
  Throw(ErrorCode::kInvalidArgument, "expected JSON of at most {} levels, found more", kMaxDepth);
}

Json ParseJson(std::string_view text) {
  const size_t bad = FindInvalidUtf8(text);
  if (bad != std::string_view::npos) {
    Throw(ErrorCode::kInvalidArgument,
          "expected UTF-8, found byte 0x{:02X} at column {} (Latin-1 or Windows-1252? convert it: "
          "iconv -f "
          "WINDOWS-1252 -t UTF-8 FILE > NEW-FILE)",
          static_cast<unsigned char>(text[bad]), bad + 1);
  }
  CheckDepth(text);
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    Throw(ErrorCode::kInvalidArgument,
          "expected one JSON object, found what is not JSON at column {}", error.byte);
  } catch (const Json::exception&) {  // a number that no double holds
    Throw(ErrorCode::kInvalidArgument, "expected one JSON object, found a number out of range");
  }
}

// JSON in a string of a row, which is held to the same depth; discarded where it is none.
Json ParseInner(const std::string& text) {
  CheckDepth(text);
  return Json::parse(text, nullptr, false);
}

// A row's fields under the names that formats know.
class Fields {
 public:
  Fields(const Json& object, const RowOptions& options) : object_(object), options_(options) {}

  const Json* Find(const std::string& name) const {
    const auto column = options_.columns.find(name);
    const auto found = object_.find(column == options_.columns.end() ? name : column->second);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  bool Has(const char* name) const { return Find(name) != nullptr; }

  std::string Text(const std::string& name) const {
    const Json* value = Find(name);
    if (value == nullptr || !value->is_string()) {
      Throw(ErrorCode::kInvalidArgument, "'{}': expected a text, found {}", name,
            value == nullptr ? "nothing" : value->type_name());
    }
    return value->get<std::string>();
  }
  std::string TextOr(const std::string& name, const std::string& fallback) const {
    return Has(name.c_str()) ? Text(name) : fallback;
  }
  // A list; in files of texts only (CSV) it may be written as JSON.
  Json List(const std::string& name) const {
    const Json* value = Find(name);
    Json list = value == nullptr ? Json() : *value;
    if (list.is_string()) {
      list = ParseInner(list.get<std::string>());
    }
    if (!list.is_array()) {
      Throw(ErrorCode::kInvalidArgument, "'{}': expected a list, found {}", name,
            value == nullptr ? "nothing" : value->type_name());
    }
    return list;
  }

 private:
  const Json& object_;
  const RowOptions& options_;
};

RowFormat Detect(const Json& object, const Fields& fields) {
  if (fields.Has("chosen") && fields.Has("rejected")) return RowFormat::kPreference;
  if (fields.Has("text")) return RowFormat::kText;
  if (fields.Has("messages")) return RowFormat::kMessages;
  if (fields.Has("conversations")) return RowFormat::kShareGpt;
  if (fields.Has("instruction") && fields.Has("output")) return RowFormat::kAlpaca;
  if (fields.Has("prompt")) return RowFormat::kPromptCompletion;
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  Throw(ErrorCode::kInvalidArgument,
        "expected 'messages' (OpenAI), 'conversations' (ShareGPT), 'instruction' and 'output' "
        "(Alpaca), "
        "'prompt' and 'completion', 'chosen' and 'rejected', or 'text'; found {}; other names can "
        "be given "
        "in the source's 'columns'",
        names.empty() ? "no field" : fmt::format("'{}'", fmt::join(names, "', '")));
}

Json Message(const char* role, std::string content) {
  return {{"role", role}, {"content", std::move(content)}};
}

// Parts of a content: [{"type": "text", "text": ...}, ...].
std::string JoinParts(const Json& parts) {
  std::string text;
  for (const Json& part : parts) {
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (!part.is_object() || type == part.end() || *type != "text" || !part.contains("text") ||
        !part["text"].is_string()) {
      Throw(ErrorCode::kInvalidArgument,
            "'content': expected parts of type \"text\" (pictures and sound are not learned), "
            "found {}",
            part.is_object() && type != part.end() ? type->dump() : part.type_name());
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

// Templates print arguments as JSON themselves: a text that holds an object becomes the object.
void ReadToolCalls(Json* calls) {
  if (!calls->is_array()) {
    Throw(ErrorCode::kInvalidArgument, "'tool_calls': expected a list, found {}",
          calls->type_name());
  }
  for (Json& call : *calls) {
    Json& function = call.is_object() && call.contains("function") ? call["function"] : call;
    if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) {
      Throw(ErrorCode::kInvalidArgument,
            "'tool_calls': expected a function with a 'name', found {}", function.type_name());
    }
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    Json parsed = ParseInner(function["arguments"].get_ref<const std::string&>());
    if (parsed.is_object()) function["arguments"] = std::move(parsed);
  }
}

// "train": true or false, or OpenAI's "weight": 0 or 1; taken out of the message.
TrainFlag TakeFlag(Json* message) {
  TrainFlag flag = TrainFlag::kByRole;
  for (const char* key : {"train", "weight"}) {
    const auto found = message->find(key);
    if (found == message->end()) continue;
    const bool yes = *found == true || *found == 1, no = *found == false || *found == 0;
    if (!yes && !no) {
      Throw(ErrorCode::kInvalidArgument, "'{}': expected {}, found {}", key,
            key[0] == 't' ? "true or false" : "0 or 1", found->dump());
    }
    flag = yes ? TrainFlag::kYes : TrainFlag::kNo;
    message->erase(key);
  }
  return flag;
}

std::string ReadContent(const Json& message, bool may_be_empty) {
  const auto content = message.find("content");
  if (content != message.end() && content->is_array()) return JoinParts(*content);
  if (content != message.end() && content->is_string()) return content->get<std::string>();
  if (may_be_empty && (content == message.end() || content->is_null())) return "";
  Throw(ErrorCode::kInvalidArgument, "'content': expected a text, found {}",
        content == message.end() ? "nothing" : content->type_name());
}

Json FromShareGpt(const Fields& fields) {
  static constexpr std::pair<std::string_view, const char*> kRoles[] = {
      {"human", "user"},
      {"user", "user"},
      {"gpt", "assistant"},
      {"assistant", "assistant"},
      {"chatgpt", "assistant"},
      {"bot", "assistant"},
      {"model", "assistant"},
      {"system", "system"},
      {"tool", "tool"},
      {"observation", "tool"},
      {"function_response", "tool"},
      {"function_call", "call"},
  };
  Json messages = Json::array();
  if (fields.Has("system")) messages.push_back(Message("system", fields.Text("system")));
  for (const Json& turn : fields.List("conversations")) {
    const auto text = [&](const char* key) -> const std::string& {
      if (!turn.is_object() || !turn.contains(key) || !turn[key].is_string()) {
        Throw(ErrorCode::kInvalidArgument,
              "'conversations': expected 'from' and 'value' as texts, found {}",
              turn.is_object() ? fmt::format("no '{}'", key) : turn.type_name());
      }
      return turn[key].get_ref<const std::string&>();
    };
    const auto role = std::find_if(std::begin(kRoles), std::end(kRoles),
                                   [&](const auto& known) { return known.first == text("from"); });
    if (role == std::end(kRoles)) {
      Throw(ErrorCode::kInvalidArgument,
            "'from': expected human, gpt, system, tool, function_call or their other names, found "
            "'{}'",
            text("from"));
    }
    Json message;
    if (std::string_view(role->second) == "call") {
      Json call = ParseInner(text("value"));
      message = Message("assistant", "");
      message["tool_calls"] = {{{"type", "function"}, {"function", std::move(call)}}};
    } else {
      message = Message(role->second, text("value"));
    }
    for (const char* key : {"train", "weight"}) {
      if (turn.contains(key)) message[key] = turn[key];
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

Json FromAlpaca(const Fields& fields) {
  Json messages = Json::array();
  if (const std::string system = fields.TextOr("system", ""); !system.empty()) {
    messages.push_back(Message("system", system));
  }
  std::string user = fields.Text("instruction");
  if (const std::string input = fields.TextOr("input", ""); !input.empty()) user += "\n\n" + input;
  messages.push_back(Message("user", std::move(user)));
  messages.push_back(Message("assistant", fields.Text("output")));
  return messages;
}

// A side of a pair: a text is one message of that role.
Json Side(const Fields& fields, const char* name, const char* role) {
  const Json* value = fields.Find(name);
  if (value != nullptr && value->is_array()) return *value;
  Json messages = Json::array();
  messages.push_back(Message(role, fields.Text(name)));
  return messages;
}

Json FromPair(const Fields& fields, const char* answer) {
  Json messages = Json::array();
  if (const std::string system = fields.TextOr("system", ""); !system.empty()) {
    messages.push_back(Message("system", system));
  }
  if (fields.Has("prompt")) {
    for (Json& message : Side(fields, "prompt", "user")) messages.push_back(std::move(message));
  }
  for (Json& message : Side(fields, answer, "assistant")) messages.push_back(std::move(message));
  return messages;
}

// What both sides begin with is the question: only what follows is compared and learned.
void ReadPreference(const Fields& fields, Row* row) {
  row->chat = ReadMessages(FromPair(fields, "chosen"));
  row->rejected = ReadMessages(FromPair(fields, "rejected"));
  const Json &chosen = *row->chat.messages, &rejected = *row->rejected.messages;
  size_t shared = 0;
  while (shared < std::min(chosen.size(), rejected.size()) && chosen[shared] == rejected[shared]) {
    ++shared;
  }
  if (shared == chosen.size() && shared == rejected.size()) {
    Throw(ErrorCode::kInvalidArgument,
          "expected 'chosen' and 'rejected' to differ, found the same twice");
  }
  if (shared == chosen.size() || shared == rejected.size() || shared == 0) {
    Throw(ErrorCode::kInvalidArgument,
          "expected 'chosen' and 'rejected' to answer the same question, found {}",
          shared == 0 ? "different first messages" : "that one is the beginning of the other");
  }
  for (Conversation* side : {&row->chat, &row->rejected}) {
    std::fill_n(side->train.begin(), shared, TrainFlag::kNo);
  }
}

std::shared_ptr<const Json> ReadTools(const Fields& fields) {
  if (!fields.Has("tools")) return nullptr;
  Json tools = fields.List("tools");
  if (tools.empty()) return nullptr;
  return std::make_shared<const Json>(std::move(tools));
}

std::string GroupOf(const Json& object, const std::string& field) {
  if (field.empty()) return "";
  const auto found = object.find(field);
  if (found == object.end() || found->is_null()) return "";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

void AppendText(const Json& messages, size_t from, std::string* text) {
  for (size_t i = from; i < messages.size(); ++i) {
    const Json& message = messages[i];
    *text += message["content"].get_ref<const std::string&>();
    if (message.contains("tool_calls")) {
      *text += message["tool_calls"].dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    *text += '\n';
  }
}

}  // namespace

std::string_view RowFormatName(RowFormat format) {
  for (const auto& [known, name] : kFormats) {
    if (known == format) return name;
  }
  return "?";
}

std::optional<RowFormat> ParseRowFormat(std::string_view name) {
  for (const auto& [format, known] : kFormats) {
    if (known == name) return format;
  }
  return std::nullopt;
}

bool IsRowField(std::string_view name) {
  return std::find(std::begin(kFields), std::end(kFields), name) != std::end(kFields);
}

std::string RowFieldNames() { return fmt::format("{}", fmt::join(kFields, ", ")); }

std::string RowFormatNames() {
  std::string names;
  for (const auto& [format, name] : kFormats) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name);
  }
  return names;
}

std::string Row::AllText() const {
  if (kind == RowKind::kText) return text;
  std::string all;
  AppendText(*chat.messages, 0, &all);
  if (kind == RowKind::kPreference) {
    size_t shared = 0;
    while (shared < rejected.train.size() && rejected.train[shared] == TrainFlag::kNo) ++shared;
    AppendText(*rejected.messages, shared, &all);
  }
  return all;
}

Conversation ReadMessages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) {
    Throw(ErrorCode::kInvalidArgument, "'messages': expected a list of messages, found {}",
          messages.is_array() ? "an empty one" : messages.type_name());
  }
  Conversation chat;
  Json read = Json::array();
  for (const Json& message : messages) {
    if (!message.is_object()) {
      Throw(ErrorCode::kInvalidArgument, "'messages': expected objects, found {}",
            message.type_name());
    }
    Json copy = message;
    chat.train.push_back(TakeFlag(&copy));
    if (!copy.contains("role") || !copy["role"].is_string()) {
      Throw(ErrorCode::kInvalidArgument, "'role': expected a text, found {}",
            copy.contains("role") ? copy["role"].type_name() : "nothing");
    }
    if (copy.contains("tool_calls") && copy["tool_calls"].is_null()) copy.erase("tool_calls");
    const bool calls = copy.contains("tool_calls");
    if (calls) ReadToolCalls(&copy["tool_calls"]);
    copy["content"] = ReadContent(message, calls);
    read.push_back(std::move(copy));
  }
  chat.messages = std::make_shared<const Json>(std::move(read));
  return chat;
}

Row ParseRow(std::string_view json, const RowOptions& options) {
  const Json object = ParseJson(json);
  if (!object.is_object()) {
    Throw(ErrorCode::kInvalidArgument, "expected a JSON object, found {}", object.type_name());
  }
  const Fields fields(object, options);
  Row row;
  row.format = options.format == RowFormat::kAuto ? Detect(object, fields) : options.format;
  row.kind = RowKind::kConversation;
  switch (row.format) {
    case RowFormat::kAuto:
    case RowFormat::kText:
      row.kind = RowKind::kText;
      row.text = fields.Text("text");
      break;
    case RowFormat::kMessages:
      row.chat = ReadMessages(fields.List("messages"));
      break;
    case RowFormat::kShareGpt:
      row.chat = ReadMessages(FromShareGpt(fields));
      break;
    case RowFormat::kAlpaca:
      row.chat = ReadMessages(FromAlpaca(fields));
      break;
    case RowFormat::kPromptCompletion:
      row.chat = ReadMessages(FromPair(fields, "completion"));
      break;
    case RowFormat::kPreference:
      row.kind = RowKind::kPreference;
      ReadPreference(fields, &row);
      break;
  }
  if (row.kind != RowKind::kText) row.tools = ReadTools(fields);
  row.group = GroupOf(object, options.group);
  return row;
}

}  // namespace bakestone
