#include "grammar/ebnf.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "text/utf8.h"

namespace bakestone::grammar {
namespace {

constexpr std::pair<uint32_t, uint32_t> kSurrogates = {0xD800, 0xDFFF};

std::string Escaped(uint32_t codepoint) {
  const bool plain = (codepoint >= '0' && codepoint <= '9') ||
                     (codepoint >= 'A' && codepoint <= 'Z') ||
                     (codepoint >= 'a' && codepoint <= 'z') || codepoint == ' ' ||
                     codepoint == '_' || codepoint == ':' || codepoint == ',';
  if (plain) return std::string(1, static_cast<char>(codepoint));
  return codepoint <= 0xFFFF ? fmt::format("\\u{:04X}", codepoint)
                             : fmt::format("\\U{:08X}", codepoint);
}

std::vector<uint32_t> Codepoints(std::string_view utf8) {
  std::vector<uint32_t> codepoints;
  for (const char *p = utf8.data(), *end = p + utf8.size(); p < end;) {
    uint32_t codepoint = 0;
    const int length = DecodeUtf8(p, end, &codepoint);
    if (length == 0) Throw(ErrorCode::kInvalidArgument, "expected UTF-8 in a grammar's text");
    codepoints.push_back(codepoint);
    p += length;
  }
  return codepoints;
}

// The letter after the backslash; 0: none, or it needs no escape.
char ShortEscape(uint32_t codepoint) {
  switch (codepoint) {
    case '"':
      return '"';
    case '\\':
      return '\\';
    case '\b':
      return 'b';
    case '\f':
      return 'f';
    case '\n':
      return 'n';
    case '\r':
      return 'r';
    case '\t':
      return 't';
    default:
      return 0;
  }
}

}  // namespace

CodepointSet::CodepointSet(std::initializer_list<std::pair<uint32_t, uint32_t>> ranges) {
  for (const auto& [first, last] : ranges) Add(first, last);
}

CodepointSet CodepointSet::All() {
  return CodepointSet({{0, kLastCodepoint}}).Minus(CodepointSet({kSurrogates}));
}

void CodepointSet::Add(uint32_t first, uint32_t last) {
  std::vector<std::pair<uint32_t, uint32_t>> result;
  for (const auto& range : ranges_) {
    if (range.second + 1 < first || range.first > last + 1) {
      result.push_back(range);
    } else {
      first = std::min(first, range.first);
      last = std::max(last, range.second);
    }
  }
  result.emplace_back(first, last);
  std::sort(result.begin(), result.end());
  ranges_ = std::move(result);
}

void CodepointSet::Add(const CodepointSet& other) {
  for (const auto& [first, last] : other.ranges_) Add(first, last);
}

CodepointSet CodepointSet::Minus(const CodepointSet& other) const {
  CodepointSet result;
  for (const auto& [first, last] : ranges_) {
    uint32_t at = first;
    bool over = false;
    for (const auto& [without, until] : other.ranges_) {
      if (over || until < at || without > last) continue;
      if (without > at) result.ranges_.emplace_back(at, without - 1);
      over = until >= last;
      at = until + 1;
    }
    if (!over) result.ranges_.emplace_back(at, last);
  }
  return result;
}

CodepointSet CodepointSet::Complement() const { return All().Minus(*this); }

bool CodepointSet::Contains(uint32_t codepoint) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& range) {
    return range.first <= codepoint && codepoint <= range.second;
  });
}

std::string Literal(std::string_view utf8) {
  std::string text = "\"";
  for (const uint32_t codepoint : Codepoints(utf8)) text += Escaped(codepoint);
  return text + "\"";
}

std::string JsonLiteral(std::string_view utf8) {
  std::string spelled;
  for (const uint32_t codepoint : Codepoints(utf8)) {
    if (const char escape = ShortEscape(codepoint)) {
      spelled += {'\\', escape};
    } else if (codepoint < 0x20) {
      spelled += fmt::format("\\u{:04x}", codepoint);
    } else {
      AppendUtf8(codepoint, &spelled);
    }
  }
  return Literal(spelled);
}

std::string OneOf(const CodepointSet& set) {
  BAKESTONE_CHECK(!set.empty());
  std::string text = "[";
  for (const auto& [first, last] : set.ranges()) {
    text += Escaped(first);
    if (last > first) text += "-" + Escaped(last);
  }
  return text + "]";
}

std::string JsonOneOf(const CodepointSet& set) {
  const CodepointSet plain = set.Minus({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  std::vector<std::string> choices;
  if (!plain.empty()) choices.push_back(OneOf(plain));
  CodepointSet escapes;
  for (const uint32_t codepoint : {'"', '\\', '\b', '\f', '\n', '\r', '\t'}) {
    if (set.Contains(codepoint)) {
      escapes.Add(static_cast<uint8_t>(ShortEscape(codepoint)),
                  static_cast<uint8_t>(ShortEscape(codepoint)));
    }
  }
  if (!escapes.empty()) choices.push_back(Literal("\\") + " " + OneOf(escapes));
  for (uint32_t codepoint = 0; codepoint < 0x20; ++codepoint) {
    if (set.Contains(codepoint) && ShortEscape(codepoint) == 0) {
      choices.push_back(Literal(fmt::format("\\u{:04x}", codepoint)));
    }
  }
  return Alternatives(choices);
}

std::string Alternatives(const std::vector<std::string>& expressions) {
  BAKESTONE_CHECK(!expressions.empty());
  return fmt::format("({})", fmt::join(expressions, " | "));
}

std::string Repeat(const std::string& expression, int64_t least, int64_t most) {
  if (most == 0) return "\"\"";
  if (least == 1 && most == 1) return expression;
  if (most < 0 && least <= 1) return expression + (least == 0 ? "*" : "+");
  if (least == 0 && most == 1) return expression + "?";
  return most < 0 ? fmt::format("{}{{{},}}", expression, least)
                  : fmt::format("{}{{{},{}}}", expression, least, most);
}

std::string Counted(const std::string& rule, int64_t least, int64_t most) {
  BAKESTONE_CHECK(rule.ends_with("character"));
  if (most == 0) return "\"\"";
  return most < 0 ? fmt::format("{}{{{},}}", rule, least)
                  : fmt::format("{}{{{},{}}}", rule, least, most);
}

}  // namespace bakestone::grammar
