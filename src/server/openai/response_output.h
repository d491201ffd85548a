// The output items of one response while they come: reasoning, messages and function calls, in the
// order in which the model began them, and the events that tell of each. No sockets; one thread at
// a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "server/api/chat_answer.h"

namespace bakestone::openai {

using api::Json;

class ResponseOutput {
 public:
  // (type, the event's other fields)
  using Emit = std::function<void(const std::string&, Json)>;
  explicit ResponseOutput(Emit emit) : emit_(std::move(emit)) {}

  // logprobs: of the tokens that came with it, a list; used where it has text.
  void Add(const dialog::ReplyDelta& delta, const api::ChatReply& whole, Json logprobs);
  // complete: false where the answer was cut; its last item is then incomplete.
  void Finish(bool complete);
  const Json& items() const { return items_; }

 private:
  enum class Kind { kNone, kReasoning, kMessage, kCall };
  void Open(Kind kind, Json item);
  void Close(const char* status);
  void AddText(Kind kind, const std::string& text, Json logprobs);
  void AddCall(const dialog::CallDelta& call, const api::ChatReply& whole);
  int64_t index() const { return static_cast<int64_t>(items_.size()) - 1; }
  Json At() const;      // {item_id, output_index}
  Json AtPart() const;  // with content_index

  const Emit emit_;
  Json items_ = Json::array();
  Kind open_ = Kind::kNone;
};

}  // namespace bakestone::openai
