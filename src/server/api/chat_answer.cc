#include "server/api/chat_answer.h"

#include <iterator>
#include <utility>

#include <fmt/format.h>

namespace bakestone::api {
namespace {

void Append(dialog::ReplyDelta&& more, dialog::ReplyDelta* delta) {
  delta->reasoning += more.reasoning;
  delta->text += more.text;
  std::move(more.calls.begin(), more.calls.end(), std::back_inserter(delta->calls));
}

// Drops all that comes after the first call. True if the call has ended.
bool CutAfterFirstCall(dialog::ReplyDelta* delta) {
  bool ended = false;
  std::erase_if(delta->calls, [&](const dialog::CallDelta& call) {
    ended |= call.index == 0 && call.ends;
    return call.index > 0;
  });
  return ended;
}

}  // namespace

ChatAnswer::ChatAnswer(ChatAnswerOptions options, std::shared_ptr<http::Responder> responder)
    : Answer(std::move(responder)), options_(std::move(options)) {}

void ChatAnswer::Begin() {
  choices_.resize(static_cast<size_t>(num_choices()));
  static const dialog::ReplyFormat kRaw = {};
  const dialog::ReplyFormat& format = options_.raw ? kRaw : options_.model->chat->traits.format;
  for (Choice& choice : choices_) {
    choice.parser = dialog::MakeReplyParser(format, options_.parsing);
    choice.begun = choice.parser->Append(options_.begun);
  }
  if (options_.stream) BeginStream();
}

void ChatAnswer::Add(const dialog::ReplyDelta& delta, ChatReply* reply) const {
  reply->reasoning += delta.reasoning;
  reply->text += delta.text;
  for (const dialog::CallDelta& call : delta.calls) {
    if (call.begins) {
      reply->calls.push_back({fmt::format("{}{:016x}{:08x}", options_.call_prefix, RandomSeed(),
                                          static_cast<uint32_t>(RandomSeed())),
                              call.name, ""});
    }
    reply->calls[static_cast<size_t>(call.index)].arguments += call.arguments;
  }
}

void ChatAnswer::OnEvent(int64_t index, Event&& event) {
  Choice& choice = choices_[index];
  ChatReply& reply = choice.reply;
  const bool was_reasoning = choice.parser->in_reasoning();
  dialog::ReplyDelta delta = std::exchange(choice.begun, {});
  Append(choice.parser->Append(event.text), &delta);
  if (event.finish) Append(choice.parser->Finish(), &delta);
  const bool enough = options_.one_call && CutAfterFirstCall(&delta);
  reply.usage = event.usage;
  reply.stop_string = std::move(event.stop_string);
  if (was_reasoning || !delta.reasoning.empty()) {
    reply.reasoning_tokens += static_cast<int64_t>(event.tokens.size());
  }
  reply.finish = enough ? FinishReason::kStop : event.finish;
  Add(delta, &reply);
  OnDelta(index, delta, event.tokens);
  std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(reply.tokens));
  if (enough && !event.finish) EndChoice(index);
}

Usage ChatAnswer::TotalUsage() const {
  Usage total;
  for (const Choice& choice : choices_) {
    const Usage& usage = choice.reply.usage;
    total.completion_tokens += usage.completion_tokens;
    total.proposed_tokens += usage.proposed_tokens;
    total.accepted_tokens += usage.accepted_tokens;
  }
  if (!choices_.empty()) {
    total.prompt_tokens = choices_[0].reply.usage.prompt_tokens;
    total.cached_tokens = choices_[0].reply.usage.cached_tokens;
  }
  return total;
}

int64_t ChatAnswer::ReasoningTokens() const {
  int64_t tokens = 0;
  for (const Choice& choice : choices_) tokens += choice.reply.reasoning_tokens;
  return tokens;
}

}  // namespace bakestone::api
