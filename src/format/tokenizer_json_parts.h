// Parts of a tokenizer.json that all kinds of tokenizers have, for its writers.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "text/tokenizer_spec.h"

namespace bakestone {

// "added_tokens": control and user-defined tokens.
nlohmann::ordered_json AddedTokensJson(const TokenizerSpec& spec);
// {token: id}, without unused ones.
nlohmann::ordered_json VocabularyJson(const TokenizerSpec& spec);
// "post_processor": what is put around one text and two, as `spec.pair` says or each as one alone.
nlohmann::ordered_json TemplateJson(const TokenizerSpec& spec);
// Throws kUnsupported for tokens that are not UTF-8.
std::string DumpedJson(const nlohmann::ordered_json& json, const TokenizerSpec& spec);

// A whole file of the two SentencePiece kinds.
std::string SentencePieceToJson(TokenizerSpec spec);

}  // namespace bakestone
