// The parts of tokenizer.json that are a Unigram model's own (T5's, XLM-R's). For
// tokenizer_json.cc.
#pragma once

#include <string_view>
#include <vector>

#include "format/json_node.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// What SentencePiece drops at the ends of a text, as patterns.
inline constexpr std::string_view kLeadingSpaces = "\\A +";
inline constexpr std::string_view kTrailingSpaces = "[ \xE2\x96\x81]+\\z";

// Pieces, their scores, the unknown one.
void ReadUnigramModel(const JsonNode& model, TokenizerSpec& spec);
// What is done to a text before the model sees it.
void ReadUnigramText(const std::vector<JsonNode>& normalizers,
                     const std::vector<JsonNode>& pre_tokenizers, TokenizerSpec& spec);

}  // namespace bakestone
