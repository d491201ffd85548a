// The string operations that several builtins share. All of them keep every byte's trust.
#include <algorithm>

#include "text/chat/builtins.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

bool HasCodePoint(std::string_view set, char32_t c) {
  for (std::size_t p = 0; p < set.size();) {
    if (NextCodePoint(set, p) == c) return true;
  }
  return false;
}

// A capital sigma ends a word if a cased letter precedes it and none follows.
bool IsFinalSigma(std::string_view s, std::size_t at, std::size_t after) {
  bool before = false;
  for (std::size_t p = at; p > 0 && !before;) {
    p = PreviousCodePoint(s, p);
    std::size_t q = p;
    const char32_t c = NextCodePoint(s, q);
    if (c == '\'' || c == 0x2019 || c == '.' || c == ':') continue;  // case-ignorable
    if (!IsCased(c)) return false;
    before = true;
  }
  for (std::size_t p = after; p < s.size();) {
    const char32_t c = NextCodePoint(s, p);
    if (c == '\'' || c == 0x2019 || c == '.' || c == ':') continue;
    return before && !IsCased(c);
  }
  return before;
}

struct Piece {
  std::size_t begin, end;
};

std::vector<Piece> SplitSpaces(std::string_view s, Int limit) {
  std::vector<Piece> out;
  std::size_t p = 0;
  const auto skip = [&] {
    while (p < s.size()) {
      std::size_t q = p;
      if (!IsSpace(NextCodePoint(s, q))) break;
      p = q;
    }
  };
  for (skip(); p < s.size(); skip()) {
    const std::size_t begin = p;
    if (limit >= 0 && static_cast<Int>(out.size()) >= limit) {
      out.push_back({begin, s.size()});
      return out;
    }
    while (p < s.size()) {
      std::size_t q = p;
      if (IsSpace(NextCodePoint(s, q))) break;
      p = q;
    }
    out.push_back({begin, p});
  }
  return out;
}

std::vector<Piece> SplitSpacesRight(std::string_view s, Int limit) {
  std::vector<Piece> out;
  std::size_t p = s.size();
  const auto back = [&](bool space) {
    while (p > 0) {
      const std::size_t at = PreviousCodePoint(s, p);
      std::size_t q = at;
      if (IsSpace(NextCodePoint(s, q)) != space) break;
      p = at;
    }
  };
  for (back(true); p > 0; back(true)) {
    const std::size_t end = p;
    if (limit >= 0 && static_cast<Int>(out.size()) >= limit) {
      out.push_back({0, end});
      break;
    }
    back(false);
    out.push_back({p, end});
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Piece> SplitOn(std::string_view s, std::string_view sep, Int limit, bool from_right) {
  std::vector<Piece> out;
  if (!from_right) {
    std::size_t begin = 0;
    while (limit < 0 || static_cast<Int>(out.size()) < limit) {
      const std::size_t at = s.find(sep, begin);
      if (at == std::string_view::npos) break;
      out.push_back({begin, at});
      begin = at + sep.size();
    }
    out.push_back({begin, s.size()});
    return out;
  }
  std::size_t end = s.size();
  while (limit < 0 || static_cast<Int>(out.size()) < limit) {
    if (end < sep.size()) break;
    const std::size_t at = s.rfind(sep, end - sep.size());
    if (at == std::string_view::npos) break;
    out.push_back({at + sep.size(), end});
    end = at;
  }
  out.push_back({0, end});
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

Text StripText(const Text& text, const Value* chars, bool left, bool right) {
  if (chars != nullptr && chars->is_none()) chars = nullptr;
  if (chars != nullptr && !chars->is_string()) Fail("strip arg must be None or str");
  const auto strips = [&](char32_t c) {
    return chars == nullptr ? IsSpace(c) : HasCodePoint(chars->str(), c);
  };
  const std::string_view s = text.view();
  std::size_t begin = 0;
  std::size_t end = s.size();
  while (left && begin < end) {
    std::size_t p = begin;
    if (!strips(NextCodePoint(s, p))) break;
    begin = p;
  }
  while (right && end > begin) {
    const std::size_t at = PreviousCodePoint(s, end);
    std::size_t p = at;
    if (!strips(NextCodePoint(s, p))) break;
    end = at;
  }
  return text.Slice(begin, end);
}

Text ReplaceText(Runtime& runtime, const Text& text, const Text& from, const Text& to, Int count) {
  Text out;
  out.set_markup(text.markup());
  const std::string_view s = text.view();
  runtime.budget.Work(s.size());
  const auto limit = static_cast<std::size_t>(runtime.budget.limits().max_string_bytes);
  std::size_t begin = 0;
  for (Int done = 0; count < 0 || done < count; ++done) {
    std::size_t at = s.find(from.view(), begin);
    if (from.empty()) {  // between any two code points, and at both ends
      at = begin;
      if (done > 0 && at < s.size()) {
        NextCodePoint(s, at);
      } else if (done > 0) {
        break;
      }
    } else if (at == std::string_view::npos) {
      break;
    }
    out.Append(text, begin, at);
    out.Append(to);
    begin = at + from.size();
    if (out.size() > limit) FailF("a string would pass {} bytes", limit);
  }
  out.Append(text, begin, s.size());
  return out;
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  std::vector<Text> out;
  const std::string_view s = text.view();
  std::size_t begin = 0;
  for (std::size_t p = 0; p < s.size();) {
    const std::size_t at = p;
    const char32_t c = NextCodePoint(s, p);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && p < s.size() && s[p] == '\n') ++p;
    out.push_back(text.Slice(begin, keep_ends ? p : at));
    begin = p;
  }
  if (begin < s.size()) out.push_back(text.Slice(begin, s.size()));
  return out;
}

std::vector<Text> SplitText(const Text& text, const Value* separator, Int limit, bool from_right) {
  if (separator != nullptr && separator->is_none()) separator = nullptr;
  if (separator != nullptr && !separator->is_string()) {
    FailF("must be str or None, not {}", separator->type_name());
  }
  if (separator != nullptr && separator->str().empty()) Fail("empty separator");
  const std::string_view s = text.view();
  const std::vector<Piece> pieces = separator != nullptr
                                        ? SplitOn(s, separator->str(), limit, from_right)
                                    : from_right ? SplitSpacesRight(s, limit)
                                                 : SplitSpaces(s, limit);
  std::vector<Text> out;
  out.reserve(pieces.size());
  for (const Piece& piece : pieces) out.push_back(text.Slice(piece.begin, piece.end));
  return out;
}

Text MapCase(const Text& text, CaseMap map) {
  Text out;
  out.set_markup(text.markup());
  const std::string_view s = text.view();
  Text::Cursor cursor(text);
  bool previous_cased = false;
  std::string piece;
  for (std::size_t p = 0; p < s.size();) {
    const std::size_t at = p;
    const char32_t c = NextCodePoint(s, p);
    piece.clear();
    const auto lower = [&] { AppendLower(piece, c, c == 0x3A3 && IsFinalSigma(s, at, p)); };
    switch (map) {
      case CaseMap::kUpper:
        AppendUpper(piece, c);
        break;
      case CaseMap::kLower:
        lower();
        break;
      case CaseMap::kFold:
        AppendFolded(piece, c);
        break;
      case CaseMap::kSwap:
        if (IsUpper(c)) {
          lower();
        } else if (IsLower(c)) {
          AppendUpper(piece, c);
        } else {
          AppendUtf8(piece, c);
        }
        break;
      case CaseMap::kTitle:
        previous_cased ? lower() : AppendTitle(piece, c);
        previous_cased = IsCased(c);
        break;
      case CaseMap::kCapitalize:
        at == 0 ? AppendTitle(piece, c) : lower();
        break;
    }
    out.Append(piece, cursor.Trusted(at));
  }
  return out;
}

}  // namespace bakestone::chat
