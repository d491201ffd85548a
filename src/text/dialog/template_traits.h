// What a chat template can show, and how the model behind it writes replies, found out by rendering
// small conversations with it: a template shows a past tool call the way the model is to write one.
// So a model of a family that nobody here has heard of works too, and nothing that a client sends
// is lost in silence because a template has no place for it (messages.h brings it to what the
// template has).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "text/chat/template.h"
#include "text/dialog/reply_format.h"

namespace bakestone::dialog {

struct TemplateTraits {
  bool system_role = true;          // a system message at the beginning shows
  bool late_system = true;          // and so does one further on
  bool developer_role = false;      // the template has words of its own for it
  bool repeated_role = true;        // two user messages in a row are not refused
  bool string_content = true;       // else content must be a list of parts
  std::string tools_key = "tools";  // the variable with the definitions; empty: they do not show
  bool tool_calls = true;           // an assistant's calls show
  bool parallel_calls = true;       // more than one of them
  bool tool_results = true;         // a tool message shows
  bool object_arguments = true;     // arguments as an object; else as a string of JSON
  bool short_ids = false;           // ids of calls must be nine letters and digits
  std::vector<std::string> reasoning_keys = {};  // of an assistant's message
  ReplyFormat format = {};
};

// tokens: bos_token, eos_token... as the template reads them. has_token: whether the vocabulary has
// this token, which tells some families whose templates do not show how they call. Never throws for
// what a template does.
TemplateTraits LearnTraits(const chat::ChatTemplate& chat_template,
                           const nlohmann::ordered_json& tokens,
                           const std::function<bool(const char*)>& has_token = nullptr);

// Internal to dialog/: what two rendered calls, or one, say about the syntax; shape kNone where
// they say nothing that reads them back. others: the same conversation with an empty answer, and
// before an answer.
CallSyntax LearnCallSyntax(const std::string& rendered, const std::vector<std::string>& others,
                           const ReasoningSyntax& reasoning);

// The conversation that LearnCallSyntax knows: {messages} with one or two calls, ids of nine
// letters.
nlohmann::ordered_json ProbeCalls(int calls, bool object_arguments);

}  // namespace bakestone::dialog
