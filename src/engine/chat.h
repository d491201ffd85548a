// From a conversation to prompt ids: the model's own template, rendered with its special tokens,
// and tokenized so that only what the template wrote can become a control token, never what a
// message says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "model/model.h"

namespace bakestone {

struct ChatPrompt {
  std::string text;  // what was rendered, for people
  std::vector<int32_t> tokens;
};

struct ChatOptions {
  bool add_generation_prompt = true;
  bool continue_last = false;  // the prompt ends where the last message does, in the middle
                               // of its turn; add_generation_prompt is
                               // not looked at
  const nlohmann::ordered_json* variables =
      nullptr;  // an object: further variables of the template, or null
};

// messages: a JSON array of objects with "role" and "content", as the template expects them. Throws
// kUnsupported when the model has no template, kInvalidArgument with the template's own message
// when it refuses the conversation, or when a variable has a name that is not for others to set.
ChatPrompt RenderChat(const Model& model, const nlohmann::ordered_json& messages,
                      const ChatOptions& options);
// tools: the functions that may be called, in OpenAI's form; null: none.
ChatPrompt RenderChat(const Model& model, const nlohmann::ordered_json& messages,
                      bool add_generation_prompt = true,
                      const nlohmann::ordered_json* tools = nullptr);

// bos_token, eos_token... as templates read them; those that the model has.
nlohmann::ordered_json TemplateTokens(const Tokenizer& tokenizer);

}  // namespace bakestone
