// A conversation that wants a reply, whatever API it came by: the families' parsers fill a
// ChatTask, and PrepareChat makes of it what the engine takes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/api/answer_form.h"
#include "server/api/fields.h"
#include "server/api/model_registry.h"
#include "text/dialog/reply_parser.h"

namespace bakestone::api {

struct ToolChoice {
  enum Kind { kAuto, kNone, kRequired, kNamed } kind = kAuto;
  std::string name = {};  // kNamed
};

struct ChatTask {
  Json messages = Json::array();  // as dialog::AdaptMessages takes them
  Json tools =
      Json::array();  // [{type: "function", function: {name, description, parameters, strict}}]
  std::map<std::string, std::string> schema_fields =
      {};  // by a tool's name: its schema's place in the request
  ToolChoice tool_choice = {};
  bool parallel_calls = true;              // false: the reply ends with its first call
  std::optional<std::string> effort = {};  // "none", "low"...: how much to reason
  Json variables = Json::object();         // further ones of the template, from the client
  bool continue_last = false;              // the last message is the beginning of the reply
  std::optional<AnswerForm> form =
      {};  // what the reply has to be; then it neither reasons nor calls
  int64_t n = 1;
  GenerationRequest request = {};  // without prompt and adapter
};

struct PreparedChat {
  std::vector<GenerationRequest> requests;  // one a choice, without sinks
  dialog::ReplyParserOptions parsing;
  bool one_call = false;  // the reply ends with its first call
  std::string begun =
      {};  // what the prompts' ends have of the reply already: a required call's opening
  std::optional<AnswerForm> form = {};  // of what follows: the task's, or that of its calls
};

// Throws ApiError or Error naming the field: no chat template, a conversation that the template
// refuses, tools that the model cannot be offered.
PreparedChat PrepareChat(const ModelEntry& model, const ChatTask& task);

// For APIs whose clients ask for more than a small model's context holds: max_tokens becomes what
// fits beside the prompt. True if that is less than was asked for.
bool FitMaxTokens(const ModelEntry& model, std::vector<GenerationRequest>* requests);

// A function's name as every API allows it.
bool IsToolName(const std::string& name);

}  // namespace bakestone::api
