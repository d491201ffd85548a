// The tokenizer and the chat template of a Hugging Face folder: tokenizer.json, or else
// tokenizer.model, completed by tokenizer_config.json (which tokens begin and end a text, tokens
// added to a SentencePiece model) and generation_config.json (which tokens end an answer). Errors
// name the file and the field.
#pragma once

#include <optional>
#include <string>

#include "text/tokenizer_spec.h"

namespace bakestone {

class HfFolder;

TokenizerSpec FromHfFolder(const HfFolder& folder);

// chat_template.jinja, or the chat_template (the one named "default", of several) of
// chat_template.json or tokenizer_config.json; nullopt where there is none.
std::optional<std::string> HfChatTemplate(const HfFolder& folder);

}  // namespace bakestone
