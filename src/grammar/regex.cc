#include "grammar/regex.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "grammar/ebnf.h"
#include "text/utf8.h"

namespace bakestone::grammar {
namespace {

constexpr size_t kMaxPatternBytes = 8192;
constexpr int kMaxGroupDepth = 50;
constexpr int64_t kMaxRepeat = 10'000;

const CodepointSet& DigitSet() {
  static const CodepointSet set({{'0', '9'}});
  return set;
}
const CodepointSet& WordSet() {
  static const CodepointSet set({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
  return set;
}
const CodepointSet& SpaceSet() {
  static const CodepointSet set({{0x09, 0x0D},
                                 {' ', ' '},
                                 {0xA0, 0xA0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200A},
                                 {0x2028, 0x2029},
                                 {0x202F, 0x202F},
                                 {0x205F, 0x205F},
                                 {0x3000, 0x3000},
                                 {0xFEFF, 0xFEFF}});
  return set;
}
const CodepointSet& LineEnds() {
  static const CodepointSet set({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});
  return set;
}

class Reader {
 public:
  Reader(std::string_view pattern, const RegexOptions& options)
      : pattern_(pattern), options_(options) {}

  std::string Read() {
    std::vector<std::string> choices;
    do choices.push_back(Whole());
    while (Take('|'));
    if (at_ < pattern_.size()) Refuse("a ')' that closes nothing");
    return Alternatives(choices);
  }

 private:
  [[noreturn]] void Refuse(std::string_view what) const {
    Throw(ErrorCode::kInvalidArgument,
          "the regular expression has {} at byte {}, which is not read here", what, at_);
  }
  bool Has(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool Take(char c) {
    if (at_ >= pattern_.size() || pattern_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string Char(const CodepointSet& set) const {
    if (set.empty()) Refuse("a class of no character");
    return options_.json ? JsonOneOf(set) : OneOf(set);
  }
  std::string Anything() const { return Repeat(Char(CodepointSet::All()), 0, -1); }

  // One alternative of the whole: ^ and $ may stand at its ends.
  std::string Whole() {
    bool begins = !options_.search, ends = !options_.search;
    while (Take('^')) begins = true;
    std::string text = Sequence(&ends);
    if (!begins) text = Anything() + " " + text;
    return ends ? text : text + " " + Anything();
  }

  // at_end: set where a $ ends it; null: none may.
  std::string Sequence(bool* at_end) {
    std::vector<std::string> parts;
    while (at_ < pattern_.size() && pattern_[at_] != '|' && pattern_[at_] != ')') {
      if (pattern_[at_] == '$') {
        const size_t after = pattern_.find_first_not_of('$', at_);
        if (!at_end || (after != std::string_view::npos && pattern_[after] != '|')) {
          Refuse("a $ that is not at an end of the whole");
        }
        at_ = after == std::string_view::npos ? pattern_.size() : after;
        *at_end = true;
        break;
      }
      parts.push_back(Quantified(Atom()));
    }
    return parts.empty() ? "\"\"" : fmt::format("{}", fmt::join(parts, " "));
  }

  std::string Quantified(const std::string& atom) {
    int64_t least = 1, most = 1;
    const size_t before = at_;
    if (Take('*')) {
      least = 0, most = -1;
    } else if (Take('+')) {
      most = -1;
    } else if (Take('?')) {
      least = 0;
    } else if (!Counted(&least, &most)) {
      return atom;
    }
    if (Has("+") || Has("*") || Has("{")) Refuse("a repeat of a repeat");
    Take('?');  // which of the ways a text matches does not matter
    if (least > kMaxRepeat || most > kMaxRepeat) {
      at_ = before;
      Refuse(fmt::format("a repeat of {}, of which at most {} are counted,", std::max(least, most),
                         kMaxRepeat));
    }
    return Repeat(atom, least, most);
  }

  std::optional<int64_t> Number() {
    if (at_ >= pattern_.size() || pattern_[at_] < '0' || pattern_[at_] > '9') return std::nullopt;
    int64_t value = 0;
    for (; at_ < pattern_.size() && pattern_[at_] >= '0' && pattern_[at_] <= '9'; ++at_) {
      if (value < kMaxRepeat * kMaxRepeat) value = value * 10 + (pattern_[at_] - '0');
    }
    return value;
  }
  // {m}, {m,} or {m,n}.
  bool Counted(int64_t* least, int64_t* most) {
    if (!Take('{')) return false;
    const auto low = Number();
    if (!low) Refuse("a { that begins no repeat");
    *least = *most = *low;
    if (Take(',')) {
      const auto high = Number();
      *most = high ? *high : -1;
      if (high && *high < *low) Refuse("a repeat whose bounds change places");
    }
    if (!Take('}')) Refuse("a { that begins no repeat");
    return true;
  }

  std::string Atom() {
    switch (pattern_[at_]) {
      case '(':
        return Group();
      case '[':
        return Char(Class());
      case '.':
        ++at_;
        return Char(LineEnds().Complement());
      case '\\':
        return Char(Escape());
      case '^':
        Refuse("a ^ that is not at the beginning of the whole");
      case '*':
      case '+':
      case '?':
      case '{':
        Refuse("a repeat of nothing");
      default:
        return Char(Single(Codepoint()));
    }
  }

  std::string Group() {
    ++at_;
    if (Take('?')) {
      if (Has("<") && !Has("<=") && !Has("<!")) {
        const size_t end = pattern_.find('>', at_);
        if (end == std::string_view::npos) Refuse("a group's name without an end");
        at_ = end + 1;
      } else if (!Take(':')) {
        Refuse("look-around or flags");
      }
    }
    if (++depth_ > kMaxGroupDepth) {
      Refuse(fmt::format("groups nested deeper than {}", kMaxGroupDepth));
    }
    std::vector<std::string> choices;
    do choices.push_back(Sequence(nullptr));
    while (Take('|'));
    if (!Take(')')) Refuse("a group without an end");
    --depth_;
    return Alternatives(choices);
  }

  static CodepointSet Single(uint32_t codepoint) { return CodepointSet({{codepoint, codepoint}}); }

  uint32_t Codepoint() {
    uint32_t codepoint = 0;
    const int length =
        DecodeUtf8(pattern_.data() + at_, pattern_.data() + pattern_.size(), &codepoint);
    if (length == 0) Refuse("bytes that are not UTF-8");
    at_ += static_cast<size_t>(length);
    return codepoint;
  }

  uint32_t Hex(size_t digits) {
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const char c = at_ < pattern_.size() ? pattern_[at_] : 'x';
      if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))) {
        Refuse("an escape that is too short");
      }
      value = value * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
  }

  uint32_t Unicode() {
    uint32_t value = 0;
    if (Take('{')) {
      const size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos || end == at_ || end - at_ > 6) {
        Refuse("an escape without an end");
      }
      value = Hex(end - at_);
      ++at_;
    } else {
      value = Hex(4);
      if (value >= 0xD800 && value < 0xDC00 && Has("\\u")) {
        at_ += 2;
        const uint32_t low = Hex(4);
        if (low < 0xDC00 || low > 0xDFFF) Refuse("half of a surrogate pair");
        value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
      }
    }
    if (value > kLastCodepoint || (value >= 0xD800 && value <= 0xDFFF)) {
      Refuse("an escape of no character");
    }
    return value;
  }

  CodepointSet Escape() {
    ++at_;
    if (at_ >= pattern_.size()) Refuse("a backslash at the end");
    const char c = pattern_[at_++];
    switch (c) {
      case 'd':
        return DigitSet();
      case 'D':
        return DigitSet().Complement();
      case 'w':
        return WordSet();
      case 'W':
        return WordSet().Complement();
      case 's':
        return SpaceSet();
      case 'S':
        return SpaceSet().Complement();
      case 't':
        return Single('\t');
      case 'n':
        return Single('\n');
      case 'r':
        return Single('\r');
      case 'f':
        return Single('\f');
      case 'v':
        return Single('\v');
      case '0':
        return Single(0);
      case 'x':
        return Single(Hex(2));
      case 'u':
        return Single(Unicode());
      default:
        break;
    }
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x80 || (c >= '1' && c <= '9') || (c >= 'a' && c <= 'z') ||
        (c >= 'A' && c <= 'Z')) {
      --at_;
      Refuse(fmt::format("the escape \\{}", byte >= 0x80 ? "" : std::string(1, c)));
    }
    return Single(byte);
  }

  CodepointSet Class() {
    ++at_;
    const bool negated = Take('^');
    CodepointSet set;
    while (!Take(']')) {
      if (at_ >= pattern_.size()) Refuse("a class without an end");
      const CodepointSet first = ClassPart();
      if (Has("-") && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']') {
        ++at_;
        const CodepointSet last = ClassPart();
        const auto single = [](const CodepointSet& part) {
          return part.ranges().size() == 1 && part.ranges()[0].first == part.ranges()[0].second;
        };
        if (!single(first) || !single(last) || first.ranges()[0].first > last.ranges()[0].first) {
          Refuse("a range that is none");
        }
        set.Add(first.ranges()[0].first, last.ranges()[0].first);
      } else {
        set.Add(first);
      }
    }
    set = set.Minus({{0xD800, 0xDFFF}});
    return negated ? set.Complement() : set;
  }
  CodepointSet ClassPart() {
    if (at_ >= pattern_.size()) Refuse("a class without an end");
    if (Has("\\b")) {
      at_ += 2;
      return Single('\b');
    }
    if (Has("\\-")) {
      at_ += 2;
      return Single('-');
    }
    return pattern_[at_] == '\\' ? Escape() : Single(Codepoint());
  }

  const std::string_view pattern_;
  const RegexOptions& options_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string FromRegex(std::string_view pattern, const RegexOptions& options) {
  if (pattern.size() > kMaxPatternBytes) {
    Throw(ErrorCode::kInvalidArgument, "the regular expression has {} bytes; at most {} are read",
          pattern.size(), kMaxPatternBytes);
  }
  return Reader(pattern, options).Read();
}

}  // namespace bakestone::grammar
