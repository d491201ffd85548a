// SentencePiece's precompiled normalization rules: the longest prefix of the text that has a rule
// is replaced. Little-endian layout: u32 size of the trie in bytes; the trie, a double array of u32
// units (Yata's darts-clone); then the replacements, each ended by a NUL. A rule's value is its
// replacement's offset. All of it comes from a file, so every index is checked at every step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone {

class Charsmap {
 public:
  // Throws Error(kCorrupt) opening with `source` on a damaged map. Empty bytes: no rules.
  Charsmap(std::string_view source, std::span<const uint8_t> bytes);

  bool empty() const { return units_.empty(); }
  // The rule for the longest prefix of text: how many bytes it takes (0: none) and what they
  // become.
  struct Rule {
    size_t length = 0;
    std::string_view replacement;
  };
  Rule Find(std::string_view text) const { return Find(text, false); }
  // The same for the shortest prefix.
  Rule FindShortest(std::string_view text) const { return Find(text, true); }

 private:
  Rule Find(std::string_view text, bool shortest) const;

  std::vector<uint32_t> units_;
  std::string replacements_;  // ends in NUL
};

}  // namespace bakestone
