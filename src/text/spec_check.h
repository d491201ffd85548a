// The check of a TokenizerSpec that came from a file: for Tokenizer's constructor only.
#pragma once

#include <vector>

#include "text/text_model.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// Throws Error(kCorrupt) naming source, field, expected and found. Fills in what older files leave
// out (types), promotes to kControl what ends a generation or opens a turn, and returns the ids
// that end a generation, ascending.
std::vector<int32_t> CheckAndComplete(TokenizerSpec* spec);

// After CheckAndComplete. Throws on duplicate tokens and on byte tokens that name no byte.
void FillVocabulary(const TokenizerSpec& spec, Vocabulary* vocabulary);

}  // namespace bakestone
