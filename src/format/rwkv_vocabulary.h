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

// The bytes of a token of a GGUF file: \t, \n, \r, \xHH, and a backslash before any other byte
// stands for that byte.
std::string UnescapeRwkvToken(std::string_view text);

}  // namespace bakestone
