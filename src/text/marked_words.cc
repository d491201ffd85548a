#include "text/marked_words.h"

#include <algorithm>

#include <utf8proc.h>

#include "text/sentencepiece_text.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

// A character and its length; a byte of a rule's replacement that is no character's counts as one.
struct Decoded {
  uint32_t codepoint = kReplacementCodepoint;
  size_t length = 1;
};
Decoded At(std::string_view text, size_t at) {
  Decoded decoded;
  const int length = DecodeUtf8(text.data() + at, text.data() + text.size(), &decoded.codepoint);
  return length > 0 ? Decoded{decoded.codepoint, static_cast<size_t>(length)} : Decoded();
}

bool IsSpace(uint32_t codepoint) { return (CharClasses::Get()[codepoint] & kSpace) != 0; }

std::string_view WithoutSpaceBefore(std::string_view text) {
  while (!text.empty()) {
    const Decoded c = At(text, 0);
    if (!IsSpace(c.codepoint)) break;
    text.remove_prefix(c.length);
  }
  return text;
}

std::string_view WithoutSpaceAfter(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const Decoded c = At(text, at);
    at += c.length;
    if (!IsSpace(c.codepoint)) end = at;
  }
  return text.substr(0, end);
}

std::string Replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    out.append(text.substr(at, found - at));
    if (found == std::string_view::npos) return out;
    out.append(to);
    at = found + from.size();
  }
}

// Two spaces or more in a row.
std::string WithRunsReplaced(std::string_view text, std::string_view to) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && text[end] == ' ') ++end;
    if (end - at >= 2) {
      out.append(to);
      at = end;
    } else {
      out.push_back(text[at++]);
    }
  }
  return out;
}

}  // namespace

MarkedWords::MarkedWords(const TokenizerSpec& spec)
    : charsmap_(spec.source, spec.precompiled_charsmap),
      steps_(spec.normalizer),
      prefix_(spec.space_prefix),
      split_white_space_(spec.split_white_space),
      split_marks_(spec.split_marks) {}

MarkedWords::Words MarkedWords::Cut(std::string_view text, FragmentPlace place) const {
  const std::string normalized = Normalize(ToValidUtf8(text));
  Words words;
  words.text.reserve(normalized.size() + normalized.size() / 2);
  const bool first = place == FragmentPlace::kFirst;
  if (!split_white_space_) {
    Add(normalized, first, words);
    return words;
  }
  size_t begin = 0;
  for (size_t at = 0; at <= normalized.size();) {
    const Decoded c = at < normalized.size() ? At(normalized, at) : Decoded{' ', 1};
    if (IsSpace(c.codepoint)) {
      Add(std::string_view(normalized).substr(begin, at - begin), first && begin == 0, words);
      begin = at + c.length;
    }
    at += c.length;
  }
  return words;
}

void MarkedWords::Add(std::string_view word, bool first, Words& words) const {
  if (word.empty()) return;
  const size_t begin = words.text.size();
  const bool marked = word.starts_with(' ') || word.starts_with(kSpacePiece);
  const bool unspaced =
      prefix_ == SpacePrefix::kEveryUnspacedPiece || (prefix_ == SpacePrefix::kFirst && first);
  if (prefix_ == SpacePrefix::kEveryPiece || (unspaced && !marked)) words.text.append(kSpacePiece);
  for (const char c : word) c == ' ' ? words.text.append(kSpacePiece) : words.text.append(1, c);
  for (size_t at = words.text.find(kSpacePiece, begin + 1);
       split_marks_ && at != std::string::npos;) {
    words.ends.push_back(at);
    at = words.text.find(kSpacePiece, at + 1);
  }
  words.ends.push_back(words.text.size());
}

std::string MarkedWords::Normalize(std::string_view text) const {
  std::string out(text);
  for (const NormalizerStep& step : steps_) {
    switch (step.kind) {
      case NormalizerStep::Kind::kCharsmap:
        out = MapCharacters(out);
        break;
      case NormalizerStep::Kind::kStripLeft:
        out = std::string(WithoutSpaceBefore(out));
        break;
      case NormalizerStep::Kind::kStripRight:
        out = std::string(WithoutSpaceAfter(out));
        break;
      case NormalizerStep::Kind::kReplace:
        out = Replaced(out, step.from, step.to);
        break;
      case NormalizerStep::Kind::kReplaceSpaces:
        out = WithRunsReplaced(out, step.to);
        break;
      case NormalizerStep::Kind::kDropLeading:
        out.erase(0, std::min(out.find_first_not_of(' '), out.size()));
        break;
      case NormalizerStep::Kind::kDropTrailing: {
        std::string_view kept = out;
        while (kept.ends_with(' ') || kept.ends_with(kSpacePiece)) {
          kept.remove_suffix(kept.ends_with(' ') ? 1 : kSpacePiece.size());
        }
        out.erase(kept.size());
        break;
      }
      case NormalizerStep::Kind::kNfc:
        out = ToNfc(out);
        break;
    }
  }
  return out;
}

// A cluster of up to 5 bytes becomes what the rule of its shortest prefix says, whole; of longer
// ones, and where no rule fits, each character by itself.
std::string MarkedWords::MapCharacters(std::string_view text) const {
  constexpr size_t kMostOfCluster = 5;
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    Decoded last = At(text, begin);
    size_t end = begin + last.length;
    utf8proc_int32_t state = 0;
    while (end < text.size()) {
      const Decoded next = At(text, end);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.codepoint),
                                           static_cast<utf8proc_int32_t>(next.codepoint), &state)) {
        break;
      }
      end += next.length;
      last = next;
    }
    const std::string_view cluster = text.substr(begin, end - begin);
    const auto rule =
        cluster.size() <= kMostOfCluster ? charsmap_.FindShortest(cluster) : Charsmap::Rule();
    if (rule.length > 0) {
      out.append(rule.replacement);
    } else {
      for (size_t at = begin; at < end;) {
        const std::string_view character = text.substr(at, At(text, at).length);
        const auto own = charsmap_.FindShortest(character);
        out.append(own.length > 0 ? own.replacement : character);
        at += character.size();
      }
    }
    begin = end;
  }
  return out;
}

}  // namespace bakestone
