// Splits text into the words that byte-level BPE works on, as the model's training did. The common
// patterns are hand-written scanners: one pass, no backtracking, no recursion. A few more known
// names, and patterns that a tokenizer.json brings, run on PCRE2 with JIT and with limits on its
// work. Immutable and thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace bakestone {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Appends the end offset of every word, in order; the last one is text.size(). No word is empty.
  virtual void Split(std::string_view text, std::vector<uint32_t>* ends) const = 0;
};

// From spec.pre_patterns, or from spec.pre_tokenizer's name. An unknown name is kUnsupported,
// listing the known ones; a pattern that does not compile is kCorrupt.
std::unique_ptr<const PreTokenizer> MakePreTokenizer(const TokenizerSpec& spec);

// For pre_tokenizer.cc: the PCRE2 implementation.
std::unique_ptr<const PreTokenizer> MakePatternPreTokenizer(std::string_view source,
                                                            std::span<const std::string> patterns);

}  // namespace bakestone
