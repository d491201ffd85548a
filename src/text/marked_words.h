// What tokenizer.json makes of a text before the Unigram model sees it: the steps of its
// normalizer, then spaces as U+2581 and words that begin with one. Unlike SentencePiece, which has
// the same rules (sentencepiece_text.h), it applies those of a precompiled map to characters as a
// reader sees them. Immutable; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/charsmap.h"
#include "text/text_model.h"

namespace bakestone {

class MarkedWords {
 public:
  explicit MarkedWords(const TokenizerSpec& spec);

  struct Words {
    std::string text;
    std::vector<size_t> ends;  // of the words in it, which follow each other
  };
  // Invalid UTF-8 becomes U+FFFD.
  Words Cut(std::string_view text, FragmentPlace place) const;

 private:
  std::string Normalize(std::string_view text) const;
  std::string MapCharacters(std::string_view text) const;
  // One word of the pre-tokenizer, marked and cut at its marks.
  void Add(std::string_view word, bool first, Words& words) const;

  Charsmap charsmap_;
  std::vector<NormalizerStep> steps_;
  SpacePrefix prefix_;
  bool split_white_space_, split_marks_;
};

}  // namespace bakestone
