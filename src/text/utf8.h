// UTF-8 as the Unicode standard defines it: no surrogates, no overlong forms, at most U+10FFFF.
// Pure functions; nothing here allocates but the two that return or append to a string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bakestone {

inline constexpr uint32_t kReplacementCodepoint = 0xFFFD;

// Length of the character at p (1..4) and its code point; 0 where no valid character starts or the
// text ends inside one. p < end.
inline int DecodeUtf8(const char* p, const char* end, uint32_t* codepoint) noexcept {
  const auto byte = [p](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(p[i])); };
  const auto trails = [&](int i) { return (byte(i) & 0xC0) == 0x80; };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    *codepoint = lead;
    return 1;
  }
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const auto left = end - p;
  if (lead < 0xE0) {
    if (left < 2 || !trails(1)) return 0;
    *codepoint = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    return 2;
  }
  if (lead < 0xF0) {
    if (left < 3 || !trails(1) || !trails(2)) return 0;
    *codepoint = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    return *codepoint < 0x800 || (*codepoint >= 0xD800 && *codepoint < 0xE000) ? 0 : 3;
  }
  if (left < 4 || !trails(1) || !trails(2) || !trails(3)) return 0;
  *codepoint =
      (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  return *codepoint < 0x10000 || *codepoint > 0x10FFFF ? 0 : 4;
}

// codepoint must be a Unicode scalar value.
void AppendUtf8(uint32_t codepoint, std::string* out);

// What starts at p where no valid character does: the length of the longest part that could begin a
// character (at least 1), and whether the text ended before it could be told (it may yet be valid).
struct InvalidPart {
  int length = 1;
  bool unfinished = false;
};
InvalidPart MeasureInvalid(const char* p, const char* end) noexcept;

// Moves what is decided from `bytes` to valid UTF-8 at the end of *out, each maximal invalid part
// as one U+FFFD, and returns how many bytes it took: all, or all but an unfinished character (<= 3
// bytes).
size_t AppendValidUtf8(std::string_view bytes, std::string* out);

// All of `bytes`, an unfinished end as U+FFFD too.
std::string ToValidUtf8(std::string_view bytes);

}  // namespace bakestone
