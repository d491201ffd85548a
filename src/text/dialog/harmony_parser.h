// ReplyParser for harmony: a reply is a list of messages
//
//   <|start|>assistant [to=RECIPIENT]<|channel|>CHANNEL [to=RECIPIENT]
//   [<|constrain|>json]<|message|>TEXT<|end|>
//
// whose first <|start|>assistant is the prompt's. "analysis" is reasoning; a message to
// functions.NAME is a call; the rest is text. Internal to dialog/.
#pragma once

#include <string>

#include "text/dialog/reply_parser.h"

namespace bakestone::dialog {

class HarmonyParser : public ReplyParser {
 public:
  explicit HarmonyParser(ReplyParserOptions options) : options_(std::move(options)) {}
  ReplyDelta Append(std::string_view text) override;
  ReplyDelta Finish() override;
  int64_t num_calls() const override { return next_call_; }
  bool in_reasoning() const override { return in_body_ && body_ == Body::kReasoning; }

 private:
  enum class Body { kReasoning, kText, kCall };
  bool Step();
  bool StepHeader();
  bool StepBody();
  void Begin(const std::string& header);
  void Emit(std::string_view text);

  const ReplyParserOptions options_;
  std::string pending_;
  bool in_body_ = false, any_message_ = false, final_ = false;
  Body body_ = Body::kText;
  int64_t next_call_ = 0;
  ReplyDelta delta_;
};

}  // namespace bakestone::dialog
