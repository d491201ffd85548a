// The vocabulary of RWKV's "world" models, as the text file beside their weights has it or as GGUF
// has its tokens. Stateless; any thread.
#pragma once

#include <string>
#include <string_view>

#include "text/tokenizer_spec.h"

namespace bakestone {

inline constexpr const char* kRwkvVocabularyFile = "rwkv_vocab_v20230424.txt";

// Throws kCorrupt naming the line, expected and found. Token 0, which no text has, begins and ends
// documents.
TokenizerSpec FromRwkvVocabulary(std::string_view text, std::string source);

// And back. Throws kUnsupported for tokens whose ids the file's lines cannot have: token 0 must be
// the one that no text has, and unused ones only behind all others.
std::string ToRwkvVocabulary(const TokenizerSpec& spec);

// The bytes of a token of a GGUF file: \t, \n, \r, \xHH, and a backslash before any other byte
// stands for that byte.
std::string UnescapeRwkvToken(std::string_view text);
// And back, in ASCII: as Python writes bytes, without its quotes.
std::string EscapeRwkvToken(std::string_view bytes);

}  // namespace bakestone
