// The content blocks of one message while they come: thinking, text and tool_use, in the order in
// which the model began them, and the events that tell of each. No sockets; one thread at a time.
#pragma once

#include <functional>
#include <string>

#include "server/api/chat_answer.h"

namespace bakestone::anthropic {

using api::Json;

class BlockOutput {
 public:
  // (type, the event's other fields)
  using Emit = std::function<void(const char*, Json)>;
  explicit BlockOutput(Emit emit) : emit_(std::move(emit)) {}

  void Add(const dialog::ReplyDelta& delta, const api::ChatReply& whole);
  void Finish();
  // Of a finished message; a call's input is an object, or empty where the model wrote something
  // else.
  Json Blocks() const;

 private:
  void Open(const char* type, Json block);
  void Close();
  void AddText(const char* type, const std::string& text);
  void AddCall(const dialog::CallDelta& call, const api::ChatReply& whole);
  int64_t index() const { return static_cast<int64_t>(blocks_.size()) - 1; }

  const Emit emit_;
  Json blocks_ = Json::array();  // a call's input as the text that came
  std::string open_;             // type of the open block
};

}  // namespace bakestone::anthropic
