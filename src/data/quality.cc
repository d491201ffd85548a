#include "data/quality.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "text/unicode.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

// "é" as UTF-8 read as Windows-1252 is "Ã©", an apostrophe "â€™": a lead byte's letter and then a
// trail byte's sign.
bool IsMojibake(uint32_t first, uint32_t second) {
  if (first == 0xC3 || first == 0xC2) return second >= 0x80 && second <= 0xBF;
  return first == 0xE2 && (second == 0x20AC || (second >= 0x80 && second <= 0x9F));
}

bool HasMarkup(std::string_view text) {
  static constexpr std::string_view kSigns[] = {
      "<div", "</div",  "<span", "<br>",  "<br/>",  "<br />", "<p>",    "</p>", "<a href",
      "</a>", "<table", "<td",   "<img ", "&nbsp;", "&amp;",  "&quot;", "&#39;"};
  return std::any_of(std::begin(kSigns), std::end(kSigns), [&](std::string_view sign) {
    return text.find(sign) != std::string_view::npos;
  });
}

// Share of words that are the last of a triple that stood there before.
bool Repeats(const std::vector<uint64_t>& words) {
  constexpr size_t kLeast = 24;
  if (words.size() < kLeast) return false;
  std::vector<uint64_t> triples;
  for (size_t i = 2; i < words.size(); ++i) {
    triples.push_back((words[i - 2] * 0x9E3779B97F4A7C15u ^ words[i - 1]) * 0xBF58476D1CE4E5B9u ^
                      words[i]);
  }
  const size_t all = triples.size();
  std::sort(triples.begin(), triples.end());
  triples.erase(std::unique(triples.begin(), triples.end()), triples.end());
  return 3 * (all - triples.size()) > all;
}

}  // namespace

std::string_view QualitySignName(QualitySign sign) {
  static constexpr std::string_view kNames[] = {"wrongly converted characters",
                                                "lost characters (U+FFFD)",
                                                "control characters",
                                                "HTML",
                                                "repetition",
                                                "few letters",
                                                "fewer than three words"};
  static_assert(std::size(kNames) == kNumQualitySigns);
  return kNames[static_cast<size_t>(sign)];
}

QualitySigns JudgeQuality(std::string_view text) {
  const CharClasses& classes = CharClasses::Get();
  QualitySigns signs{};
  const auto set = [&](QualitySign sign, bool value = true) {
    signs[static_cast<size_t>(sign)] = signs[static_cast<size_t>(sign)] || value;
  };
  std::vector<uint64_t> words;
  uint64_t word = 0;
  int64_t letters = 0, others = 0;
  uint32_t last = 0;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    uint32_t c;
    const int length = DecodeUtf8(p, end, &c);
    if (length == 0) {
      ++p;
      continue;
    }
    p += length;
    set(QualitySign::kReplacement, c == kReplacementCodepoint);
    set(QualitySign::kControl,
        (c < 32 && c != '\n' && c != '\t' && c != '\r') || (c >= 0x7F && c < 0xA0));
    set(QualitySign::kMojibake, IsMojibake(last, c));
    last = c;
    if ((classes[c] & kSpace) != 0) {
      if (word != 0) words.push_back(word);
      word = 0;
      continue;
    }
    ++((classes[c] & (kLetter | kMark)) != 0 ? letters : others);
    word = (word ^ (c + 1)) * 0x100000001B3u;
  }
  if (word != 0) words.push_back(word);
  set(QualitySign::kMarkup, HasMarkup(text));
  set(QualitySign::kRepetition, Repeats(words));
  set(QualitySign::kFewLetters, letters + others > 0 && letters < others);
  // Han and kana write no spaces: twelve of their letters are more than three words.
  set(QualitySign::kShort, words.size() < 3 && letters < 12);
  return signs;
}

}  // namespace bakestone
