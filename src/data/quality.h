// Signs that a text was not meant to be learned as it stands: damage done by conversions, leftovers
// of web pages, repetition, next to no words. Counted and shown, never acted upon: what is right
// for a corpus is its owner's to say. Pure functions, linear, for any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace bakestone {

enum class QualitySign : uint8_t {
  kMojibake,     // UTF-8 that was read as Latin-1 and written as UTF-8 again
  kReplacement,  // U+FFFD: bytes were lost in a conversion
  kControl,      // control characters
  kMarkup,       // HTML tags or entities
  kRepetition,   // more than a third of the words stand in word triples that occurred before
  kFewLetters,   // less than half of the characters that are no spaces are letters
  kShort,        // fewer than three words
};
inline constexpr int kNumQualitySigns = 7;
std::string_view QualitySignName(QualitySign sign);  // for people

using QualitySigns = std::array<bool, kNumQualitySigns>;
QualitySigns JudgeQuality(std::string_view text);

}  // namespace bakestone
