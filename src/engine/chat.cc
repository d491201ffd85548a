#include "engine/chat.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

// Stands where the last message ends, so that the end can be found in what was rendered. Of the
// private use area: no text that means anything has it.
constexpr std::string_view kEndMark = "\xEE\x80\x80\xEE\x80\x81\xEE\x80\x80";

// The template's own names, and those that count as its text.
bool Reserved(const std::string& name) {
  return name == "messages" || name == "add_generation_prompt" || name.ends_with("_token");
}

Json ContextOf(const Model& model, const Json& messages, const ChatOptions& options) {
  Json context = {
      {"messages", messages},
      {"add_generation_prompt", options.add_generation_prompt && !options.continue_last}};
  context.update(TemplateTokens(model.tokenizer));
  if (options.variables) {
    for (const auto& [name, value] : options.variables->items()) {
      if (Reserved(name)) {
        Throw(ErrorCode::kInvalidArgument, "chat_template_kwargs: '{}' is not for a request to set",
              name);
      }
      context[name] = value;
    }
  }
  if (options.continue_last) {
    Json& last = context["messages"].back();
    if (!last.contains("content") || !last["content"].is_string()) {
      Throw(ErrorCode::kInvalidArgument,
            "messages: the last one, which is to be continued, must have text as content");
    }
    last["content"] = last["content"].get<std::string>() + std::string(kEndMark);
  }
  return context;
}

// Drops what comes after the mark, and the mark.
void CutAtMark(chat::Rendered* rendered) {
  const size_t end = rendered->text.rfind(kEndMark);
  if (end == std::string::npos) {
    Throw(ErrorCode::kUnsupported,
          "messages: this model's chat template does not show where the last message ends, so it "
          "cannot be continued");
  }
  rendered->text.resize(end);
  size_t at = 0;
  for (chat::Segment& segment : rendered->segments) {
    const size_t length = segment.text.size();
    segment.text.resize(at >= end ? 0 : std::min(length, end - at));
    at += length;
  }
}

}  // namespace

Json TemplateTokens(const Tokenizer& tokenizer) {
  Json tokens = Json::object();
  const auto name = [&](const char* key, int32_t id) {
    if (id >= 0) tokens[key] = tokenizer.TokenText(id);
  };
  name("bos_token", tokenizer.bos());
  name("eos_token", tokenizer.eos());
  name("unk_token", tokenizer.unk());
  name("pad_token", tokenizer.pad());
  return tokens;
}

ChatPrompt RenderChat(const Model& model, const Json& messages, const ChatOptions& options) {
  if (!model.chat_template) {
    Throw(ErrorCode::kUnsupported,
          "{}: the file has no chat template (tokenizer.chat_template), so it cannot hold a "
          "conversation; use plain completion",
          model.path.string());
  }
  chat::RenderOptions render;
  render.now = chat::LocalNow();
  chat::Rendered rendered =
      model.chat_template->Render(ContextOf(model, messages, options), render);
  if (options.continue_last) CutAtMark(&rendered);
  std::vector<TextSegment> segments;
  for (const chat::Segment& segment : rendered.segments) {
    segments.push_back({segment.text, segment.from_template});
  }
  // The template writes BOS itself where the model wants one, as in Hugging Face's tokenizers.
  ChatPrompt prompt;
  prompt.tokens = model.tokenizer.Encode(segments, /*add_special=*/false);
  prompt.text = std::move(rendered.text);
  return prompt;
}

ChatPrompt RenderChat(const Model& model, const Json& messages, bool add_generation_prompt,
                      const Json* tools) {
  Json variables = Json::object();
  if (tools) variables["tools"] = *tools;
  return RenderChat(
      model, messages,
      ChatOptions{.add_generation_prompt = add_generation_prompt, .variables = &variables});
}

}  // namespace bakestone
