// From a conversation to prompt ids: the model's own template, rendered with its special tokens, and
// tokenized so that only what the template wrote can become a control token, never what a message says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/model.h"

namespace bakestone {

struct ChatPrompt {
  std::string text;             // what was rendered, for people
  std::vector<int32_t> tokens;
};

// messages: a JSON array of objects with "role" and "content", as the template expects them. tools: the
// functions that may be called, in OpenAI's form; null: none. Throws
// kUnsupported when the model has no template, kInvalidArgument with the template's own message when
// it refuses the conversation.
ChatPrompt RenderChat(const Model& model, const nlohmann::ordered_json& messages,
                      bool add_generation_prompt = true,
                      const nlohmann::ordered_json* tools = nullptr);

}  // namespace bakestone
