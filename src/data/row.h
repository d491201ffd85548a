// One row of a data set, whatever file it came from: a text, a conversation, or a preference
// between two conversations. The formats that people have (`format` in a recipe):
//
//   text               {"text"}; all of a .txt or .md file
//   messages           {"messages": [{"role", "content", "tool_calls"?, "train"? or "weight"?}],
//                      "tools"?}  (OpenAI)
//   sharegpt           {"conversations": [{"from", "value"}], "system"?, "tools"?}
//   alpaca             {"instruction", "input"?, "output", "system"?}
//   prompt_completion  {"prompt", "completion"}: texts, or lists of messages
//   preference         {"prompt"?, "chosen", "rejected"}: texts, or lists of messages
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace bakestone {

enum class RowFormat : uint8_t {
  kAuto,
  kText,
  kMessages,
  kShareGpt,
  kAlpaca,
  kPromptCompletion,
  kPreference
};
std::string_view RowFormatName(RowFormat format);
std::optional<RowFormat> ParseRowFormat(std::string_view name);
std::string RowFormatNames();  // "auto, text, ..."

enum class RowKind : uint8_t { kText, kConversation, kPreference };

// Which messages of a conversation are learned, one entry a message.
enum class TrainFlag : int8_t { kByRole, kNo, kYes };  // kByRole: what the assistant says

struct Conversation {
  std::shared_ptr<const nlohmann::ordered_json>
      messages;                  // role, content, ...; as templates expect them
  std::vector<TrainFlag> train;  // [messages]
};

struct Row {
  int64_t number = 0;  // line of the file (row, element) that it begins at, from 1
  RowKind kind = RowKind::kText;
  RowFormat format = RowFormat::kText;
  std::string text;        // kText
  bool continues = false;  // kText: the next row is the same document
  Conversation chat;       // kConversation; kPreference: what was chosen
  Conversation rejected;   // kPreference
  std::shared_ptr<const nlohmann::ordered_json> tools;  // may be null
  std::string group;                                    // of the split; empty: none stated

  // All that is written in it, for those who count, compare and look for personal data.
  std::string AllText() const;
};

// What a recipe's 'columns' may name: "prompt", "completion", ...
bool IsRowField(std::string_view name);
std::string RowFieldNames();  // "text, messages, ..."

struct RowOptions {
  RowFormat format = RowFormat::kAuto;
  std::map<std::string, std::string> columns;  // field that formats know -> name in the file
  std::string group;                           // field that holds the group
};

// Reads one JSON object. Throws kInvalidArgument with field, expected and found, without the place.
Row ParseRow(std::string_view json, const RowOptions& options);

// Checks a list of messages and brings it to the form that templates expect: contents are texts,
// arguments of tool calls objects, flags apart. Throws kInvalidArgument.
Conversation ReadMessages(const nlohmann::ordered_json& messages);

}  // namespace bakestone
