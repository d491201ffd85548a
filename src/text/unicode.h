// Unicode facts for the tokenizers: the classes that pre-tokenizer patterns speak of, and NFC. Pure
// and thread-safe; the class table (about 60 KiB) is built once, on first use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone {

// Bits of a class byte.
enum CharClass : uint8_t {
  kLetter = 1,      // \p{L}
  kNumber = 2,      // \p{N}
  kSpace = 4,       // \s: White_Space
  kNewline = 8,     // \r or \n (also kSpace)
  kMark = 16,       // \p{M}
  kConnector = 32,  // \p{Pc}
};

class CharClasses {
 public:
  static const CharClasses& Get();
  uint8_t operator[](uint32_t codepoint) const {  // codepoint <= U+10FFFF
    return blocks_[static_cast<size_t>(index_[codepoint >> 8]) << 8 | (codepoint & 255)];
  }

 private:
  CharClasses();
  std::vector<uint16_t> index_;
  std::vector<uint8_t> blocks_;
};

// Normalization form C of the valid parts; invalid bytes stay as they are. O(n log n) even for text
// of combining marks only.
std::string ToNfc(std::string_view text);

// True when ToNfc would surely return the text unchanged (no character from U+0300 up); cheap.
bool IsTriviallyNfc(std::string_view text);

}  // namespace bakestone
