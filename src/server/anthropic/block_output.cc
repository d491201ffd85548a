#include "server/anthropic/block_output.h"

#include <utility>

#include "text/dialog/json_scanner.h"

namespace bakestone::anthropic {

void BlockOutput::Open(const char* type, Json block) {
  Close();
  open_ = type;
  blocks_.push_back(block);
  if (open_ == "tool_use") {
    blocks_.back()["input"] = "";
    block["input"] = Json::object();
  }
  emit_("content_block_start", {{"index", index()}, {"content_block", std::move(block)}});
}

void BlockOutput::Close() {
  if (open_.empty()) return;
  if (open_ == "thinking") {  // clients hold a block without a signature for incomplete
    emit_("content_block_delta",
          {{"index", index()},
           {"delta", {{"type", "signature_delta"}, {"signature", blocks_.back()["signature"]}}}});
  }
  open_.clear();
  emit_("content_block_stop", {{"index", index()}});
}

void BlockOutput::AddText(const char* type, const std::string& text) {
  const bool thinking = std::string_view(type) == "thinking";
  const char* key = thinking ? "thinking" : "text";
  if (open_ != type) {
    Json block = {{"type", type}, {key, ""}};
    if (thinking) block["signature"] = "";
    Open(type, std::move(block));
    if (thinking) blocks_.back()["signature"] = "unsigned";
  }
  blocks_.back()[key].get_ref<std::string&>() += text;
  emit_("content_block_delta",
        {{"index", index()},
         {"delta", {{"type", thinking ? "thinking_delta" : "text_delta"}, {key, text}}}});
}

void BlockOutput::AddCall(const dialog::CallDelta& call, const api::ChatReply& whole) {
  if (call.begins) {
    Open("tool_use", {{"type", "tool_use"},
                      {"id", whole.calls[static_cast<size_t>(call.index)].id},
                      {"name", call.name}});
  }
  if (open_ != "tool_use" || call.arguments.empty()) return;
  blocks_.back()["input"].get_ref<std::string&>() += call.arguments;
  emit_("content_block_delta",
        {{"index", index()},
         {"delta", {{"type", "input_json_delta"}, {"partial_json", call.arguments}}}});
}

void BlockOutput::Add(const dialog::ReplyDelta& delta, const api::ChatReply& whole) {
  if (!delta.reasoning.empty()) AddText("thinking", delta.reasoning);
  if (!delta.text.empty()) AddText("text", delta.text);
  for (const dialog::CallDelta& call : delta.calls) AddCall(call, whole);
}

void BlockOutput::Finish() { Close(); }

Json BlockOutput::Blocks() const {
  Json blocks = blocks_;
  for (Json& block : blocks) {
    if (block["type"] != "tool_use") continue;
    Json input = dialog::ParseBounded(block["input"].get<std::string>());
    block["input"] = input.is_object() ? std::move(input) : Json::object();
  }
  return blocks;
}

}  // namespace bakestone::anthropic
