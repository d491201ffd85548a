// The parts of tokenizer.json that are a Unigram model's own (T5's, XLM-R's). For
// tokenizer_json.cc.
#pragma once

#include <vector>

#include "format/json_node.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// Pieces, their scores, the unknown one.
void ReadUnigramModel(const JsonNode& model, TokenizerSpec& spec);
// What is done to a text before the model sees it.
void ReadUnigramText(const std::vector<JsonNode>& normalizers,
                     const std::vector<JsonNode>& pre_tokenizers, TokenizerSpec& spec);

}  // namespace bakestone
