// An answer to a conversation: each choice's text is taken apart into reasoning, text and tool
// calls while it comes. The families' subclasses write what it is made of.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/api/answer.h"
#include "server/api/chat_task.h"
#include "text/dialog/reply_parser.h"

namespace bakestone::api {

struct ToolCall {
  std::string id, name, arguments;
};

// What a choice has said so far.
struct ChatReply {
  std::string reasoning, text;
  std::vector<ToolCall> calls;
  std::vector<TokenInfo> tokens;
  Usage usage;
  int64_t reasoning_tokens = 0;
  std::optional<FinishReason> finish;
  std::string stop_string;
};

struct ChatAnswerOptions {
  ModelPtr model;
  bool stream = false;
  dialog::ReplyParserOptions parsing = {};
  bool one_call = false;
  std::string call_prefix = "call_";
  std::string begun = {};  // what the prompt has of the reply already
  bool raw = false;        // the text is taken as it is; the model needs no chat template
};

class ChatAnswer : public Answer {
 public:
  ChatAnswer(ChatAnswerOptions options, std::shared_ptr<http::Responder> responder);

 protected:
  // What came, after it was added to the reply, streamed or not. The reply's finish is set in its
  // last delta.
  virtual void OnDelta(int64_t choice, const dialog::ReplyDelta& delta,
                       const std::vector<TokenInfo>& tokens) = 0;

  const ChatAnswerOptions& options() const { return options_; }
  const Tokenizer& tokenizer() const { return options_.model->model().tokenizer; }
  const ChatReply& reply(int64_t choice) const { return choices_[choice].reply; }
  // Of all choices: their prompt counts once.
  Usage TotalUsage() const;
  int64_t ReasoningTokens() const;

 private:
  struct Choice {
    ChatReply reply;
    std::unique_ptr<dialog::ReplyParser> parser;
    dialog::ReplyDelta begun = {};  // to be told with the first event
  };
  void Begin() final;
  virtual void BeginStream() {}
  void OnEvent(int64_t choice, Event&& event) final;
  void Add(const dialog::ReplyDelta& delta, ChatReply* reply) const;

  const ChatAnswerOptions options_;
  std::vector<Choice> choices_;
};

}  // namespace bakestone::api
