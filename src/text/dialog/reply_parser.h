// Takes a model's reply apart while it is being written: reasoning, text, and tool calls, whose
// arguments are handed on as they come. Whatever looks like a call and turns out to be none is text
// again, so nothing of a reply is lost; white space around reasoning and calls is. One parser a
// reply, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/dialog/reply_format.h"

namespace bakestone::dialog {

// What a piece of a reply added. Of a call, the first delta has begins and name, later ones
// arguments; all arguments of a call together are what the model wrote, a JSON object if it wrote
// one.
struct CallDelta {
  int64_t index = 0;
  bool begins = false;
  std::string name = {};
  std::string arguments = {};
  bool ends = false;
};
struct ReplyDelta {
  std::string reasoning = {}, text = {};
  std::vector<CallDelta> calls = {};
  bool empty() const { return reasoning.empty() && text.empty() && calls.empty(); }
};

struct ReplyParserOptions {
  bool reads_calls = false;   // the request had tools
  bool in_reasoning = false;  // the prompt ends inside of reasoning
  // By name: the JSON Schema of its parameters, null where unknown. Says which bare texts are
  // strings.
  nlohmann::ordered_json tools = nlohmann::ordered_json::object();
};

class ReplyParser {
 public:
  virtual ~ReplyParser() = default;
  virtual ReplyDelta Append(std::string_view text) = 0;
  virtual ReplyDelta Finish() = 0;  // the reply is over, complete or cut
  virtual int64_t num_calls() const = 0;
  virtual bool in_reasoning() const = 0;
};

// format must outlive the parser.
std::unique_ptr<ReplyParser> MakeReplyParser(const ReplyFormat& format, ReplyParserOptions options);

// The markers of a format as the model writes them: control tokens among them must show in its
// text.
std::vector<std::string> MarkersOf(const ReplyFormat& format);

}  // namespace bakestone::dialog
