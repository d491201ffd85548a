#include "server/openai/response_output.h"

#include <utility>

namespace bakestone::openai {

Json ResponseOutput::At() const {
  return {{"item_id", items_.back()["id"]}, {"output_index", index()}};
}

Json ResponseOutput::AtPart() const {
  Json place = At();
  place["content_index"] = 0;
  return place;
}

void ResponseOutput::Open(Kind kind, Json item) {
  if (open_ != Kind::kNone) Close("completed");
  open_ = kind;
  items_.push_back(std::move(item));
  emit_("response.output_item.added", {{"output_index", index()}, {"item", items_.back()}});
  if (kind == Kind::kCall) return;
  Json part = kind == Kind::kReasoning ? Json{{"type", "reasoning_text"}, {"text", ""}}
                                       : Json{{"type", "output_text"},
                                              {"text", ""},
                                              {"annotations", Json::array()},
                                              {"logprobs", Json::array()}};
  items_.back()["content"] = Json::array({part});
  Json event = AtPart();
  event["part"] = std::move(part);
  emit_("response.content_part.added", std::move(event));
}

void ResponseOutput::Close(const char* status) {
  Json& item = items_.back();
  item["status"] = status;
  if (open_ == Kind::kCall) {
    Json event = At();
    event["name"] = item["name"];
    event["arguments"] = item["arguments"];
    emit_("response.function_call_arguments.done", std::move(event));
  } else {
    const Json& part = item["content"][0];
    Json event = AtPart();
    event["text"] = part["text"];
    if (open_ == Kind::kMessage) event["logprobs"] = part["logprobs"];
    emit_(open_ == Kind::kMessage ? "response.output_text.done" : "response.reasoning_text.done",
          std::move(event));
    event = AtPart();
    event["part"] = part;
    emit_("response.content_part.done", std::move(event));
  }
  open_ = Kind::kNone;
  emit_("response.output_item.done", {{"output_index", index()}, {"item", item}});
}

void ResponseOutput::AddText(Kind kind, const std::string& text, Json logprobs) {
  if (open_ != kind) {
    const bool reasoning = kind == Kind::kReasoning;
    Json item = {{"id", api::MakeId(reasoning ? "rs_" : "msg_")},
                 {"type", reasoning ? "reasoning" : "message"},
                 {"status", "in_progress"}};
    item[reasoning ? "summary" : "content"] = Json::array();
    if (!reasoning) item["role"] = "assistant";
    Open(kind, std::move(item));
  }
  Json& part = items_.back()["content"][0];
  part["text"].get_ref<std::string&>() += text;
  Json event = AtPart();
  event["delta"] = text;
  if (kind == Kind::kMessage) {
    for (const Json& entry : logprobs) part["logprobs"].push_back(entry);
    event["logprobs"] = std::move(logprobs);
  }
  emit_(kind == Kind::kMessage ? "response.output_text.delta" : "response.reasoning_text.delta",
        std::move(event));
}

void ResponseOutput::AddCall(const dialog::CallDelta& call, const api::ChatReply& whole) {
  if (call.begins) {
    Open(Kind::kCall, {{"id", api::MakeId("fc_")},
                       {"type", "function_call"},
                       {"status", "in_progress"},
                       {"call_id", whole.calls[static_cast<size_t>(call.index)].id},
                       {"name", call.name},
                       {"arguments", ""}});
  }
  if (open_ != Kind::kCall || call.arguments.empty()) return;
  items_.back()["arguments"].get_ref<std::string&>() += call.arguments;
  Json event = At();
  event["delta"] = call.arguments;
  emit_("response.function_call_arguments.delta", std::move(event));
}

void ResponseOutput::Add(const dialog::ReplyDelta& delta, const api::ChatReply& whole,
                         Json logprobs) {
  if (!delta.reasoning.empty()) AddText(Kind::kReasoning, delta.reasoning, Json::array());
  if (!delta.text.empty()) AddText(Kind::kMessage, delta.text, std::move(logprobs));
  for (const dialog::CallDelta& call : delta.calls) AddCall(call, whole);
}

void ResponseOutput::Finish(bool complete) {
  if (open_ != Kind::kNone) Close(complete ? "completed" : "incomplete");
  if (items_.empty()) {  // an answer without a word is a message without a word
    AddText(Kind::kMessage, "", Json::array());
    Close(complete ? "completed" : "incomplete");
  }
}

}  // namespace bakestone::openai
