// SentencePiece's own model file (tokenizer.model), a protocol buffer, to a TokenizerSpec: BPE by
// score and unigram models. The bytes are hostile: every length is checked against what is there.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer_spec.h"

namespace bakestone {

// `source` stands for the file in errors (kCorrupt, kUnsupported).
TokenizerSpec FromSentencePieceModel(std::span<const uint8_t> bytes, std::string source);

}  // namespace bakestone
