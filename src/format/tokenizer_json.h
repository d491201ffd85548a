// tokenizer.json, as the PyPI package `tokenizers` writes it, to a TokenizerSpec that encodes and
// decodes as that package does. Read: BPE models, byte-level (GPT-2's, Llama 3's, Qwen's kind) and
// with byte fallback (Llama 2's, Gemma's kind), with the normalizers, pre-tokenizers, decoders and
// post-processors that such models use. What is not is refused by name: it would silently give
// other tokens than the model was trained on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace bakestone {

// `source` stands for the file in errors (kCorrupt, kUnsupported).
TokenizerSpec FromTokenizerJson(std::string_view json, std::string source);

// The patterns, one after the other, that a pre-tokenizer of this name cuts by; empty for one that
// is not known.
std::vector<std::string> PatternsOfPreTokenizer(std::string_view name);

// The other way: byte-level BPE, word pieces, and SentencePiece's BPE and Unigram. Throws
// kUnsupported for pre-tokenizers without known patterns, and for rules of SentencePiece that a
// tokenizer.json cannot say. Tokens that are marked unused are left out.
std::string ToTokenizerJson(const TokenizerSpec& spec);

}  // namespace bakestone
