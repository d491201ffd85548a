#include "engine/chat.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bakestone {

ChatPrompt RenderChat(const Model& model, const nlohmann::ordered_json& messages,
                      bool add_generation_prompt, const nlohmann::ordered_json* tools) {
  if (!model.chat_template) {
    Throw(ErrorCode::kUnsupported,
          "{}: the file has no chat template (tokenizer.chat_template), so it cannot hold a "
          "conversation; use plain completion",
          model.path.string());
  }
  nlohmann::ordered_json context = {{"messages", messages}, {"add_generation_prompt", add_generation_prompt}};
  if (tools != nullptr) context["tools"] = *tools;
  const Tokenizer& tokenizer = model.tokenizer;
  const auto name = [&](const char* key, int32_t id) {
    if (id >= 0) context[key] = tokenizer.TokenText(id);
  };
  name("bos_token", tokenizer.bos());
  name("eos_token", tokenizer.eos());
  name("unk_token", tokenizer.unk());
  name("pad_token", tokenizer.pad());

  chat::RenderOptions options;
  options.now = chat::LocalNow();
  chat::Rendered rendered = model.chat_template->Render(context, options);
  std::vector<TextSegment> segments;
  for (const chat::Segment& segment : rendered.segments) {
    segments.push_back({segment.text, segment.from_template});
  }
  // The template writes BOS itself where the model wants one, as in Hugging Face's tokenizers.
  ChatPrompt prompt;
  prompt.tokens = tokenizer.Encode(segments, /*add_special=*/false);
  prompt.text = std::move(rendered.text);
  return prompt;
}

}  // namespace bakestone
