// str() and repr() of values, and numbers from and to text, as Python writes them.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "text/chat/objects.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

std::string StripUnderscores(std::string_view text, bool* ok) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i - 1] == '_') {
      *ok = false;
    }
  }
  return out;
}

// Spaces off both ends, and every Unicode decimal digit as an ASCII one.
std::string Normalize(std::string_view text) {
  std::size_t begin = 0;
  std::size_t end = text.size();
  for (std::size_t p = 0; p < end && IsSpace(NextCodePoint(text, p)); begin = p) {
  }
  while (end > begin) {
    std::size_t p = PreviousCodePoint(text, end);
    const std::size_t at = p;
    if (!IsSpace(NextCodePoint(text, p))) break;
    end = at;
  }
  std::string out;
  for (std::size_t p = begin; p < end;) {
    const char32_t c = NextCodePoint(text, p);
    const int digit = c < 0x80 ? -1 : DecimalValue(c);
    if (digit >= 0) {
      out += static_cast<char>('0' + digit);
    } else {
      AppendUtf8(out, c);
    }
  }
  return out;
}

void AppendStringRepr(Text& out, const Text& text) {
  const std::string& s = text.bytes();
  const char quote =
      s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
  if (text.markup()) out.Append("Markup(", true);
  out.Append(std::string_view(&quote, 1), true);
  Text::Cursor cursor(text);
  for (std::size_t p = 0; p < s.size();) {
    const std::size_t at = p;
    const char32_t c = NextCodePoint(s, p);
    std::string piece;
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      piece = {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      piece = "\\n";
    } else if (c == '\r') {
      piece = "\\r";
    } else if (c == '\t') {
      piece = "\\t";
    } else if (!IsPrintable(c)) {
      const auto n = static_cast<std::uint32_t>(c);
      piece = c < 0x100     ? fmt::format("\\x{:02x}", n)
              : c < 0x10000 ? fmt::format("\\u{:04x}", n)
                            : fmt::format("\\U{:08x}", n);
    } else {
      piece = s.substr(at, p - at);
    }
    out.Append(piece, cursor.Trusted(at));
  }
  out.Append(std::string_view(&quote, 1), true);
  if (text.markup()) out.Append(")", true);
}

void AppendListRepr(Text& out, const List& list) {
  out.Append(list.tuple ? "(" : "[", true);
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.Append(", ", true);
    AppendRepr(out, list.items[i]);
  }
  if (list.tuple && list.items.size() == 1) out.Append(",", true);
  out.Append(list.tuple ? ")" : "]", true);
}

void AppendDictRepr(Text& out, const Dict& dict) {
  out.Append("{", true);
  for (std::size_t i = 0; i < dict.size(); ++i) {
    if (i > 0) out.Append(", ", true);
    AppendRepr(out, dict.items()[i].first);
    out.Append(": ", true);
    AppendRepr(out, dict.items()[i].second);
  }
  out.Append("}", true);
}

void AppendObjectRepr(Text& out, const Value& value) {
  if (const auto* range = value.As<Range>()) {
    out.Append(range->step == 1 ? fmt::format("range({}, {})", IntToString(range->start),
                                              IntToString(range->stop))
                                : fmt::format("range({}, {}, {})", IntToString(range->start),
                                              IntToString(range->stop), IntToString(range->step)),
               true);
  } else if (const auto* view = value.As<DictView>()) {
    std::vector<Value> items;
    for (std::size_t i = 0; i < view->dict->size(); ++i) items.push_back(DictViewItem(*view, i));
    out.Append(view->type_name(), true);
    out.Append("(", true);
    AppendRepr(out, MakeList(std::move(items)));
    out.Append(")", true);
  } else if (const auto* loop = value.As<Loop>()) {
    out.Append(fmt::format("<LoopContext {}/{}>", loop->index0 + 1, loop->items.size()), true);
  } else {
    // Python writes an address or inner state here; no template can depend on it.
    FailF("a {} cannot be written as text", value.type_name());
  }
}

}  // namespace

std::string IntToString(Int value) {
  if (value == 0) return "0";
  std::string digits;
  __extension__ unsigned __int128 rest =
      value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  for (; rest != 0; rest /= 10) {
    digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
  }
  return value < 0 ? "-" + digits : digits;
}

std::string DoubleRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  // The shortest digits that read back as the same number, then Python's choice of notation.
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  int exponent = 0;
  const std::size_t first = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + first, end, exponent);
  std::string sign = text[0] == '-' ? "-" : "";
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const int n = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    if (n > 1) digits.insert(1, ".");
    return fmt::format("{}{}e{}{:02d}", sign, digits, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) {
    return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  }
  if (n <= exponent + 1) {
    return sign + digits + std::string(static_cast<std::size_t>(exponent + 1 - n), '0') + ".0";
  }
  return sign + digits.substr(0, static_cast<std::size_t>(exponent + 1)) + "." +
         digits.substr(static_cast<std::size_t>(exponent + 1));
}

std::optional<Int> ParseInt(std::string_view text, int base) {
  std::string s = Normalize(text);
  bool negative = false;
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) {
    negative = s[0] == '-';
    s.erase(0, 1);
  }
  if (s.size() > 2 && s[0] == '0') {
    const char p = static_cast<char>(s[1] | 0x20);
    const int prefixed = p == 'x' ? 16 : p == 'o' ? 8 : p == 'b' ? 2 : 0;
    if (prefixed != 0 && (base == prefixed || base == 0)) {
      base = prefixed;
      s.erase(0, s[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  bool ok = base >= 2 && base <= 36;
  s = StripUnderscores(s, &ok);
  if (!ok || s.empty()) return std::nullopt;
  Int value = 0;
  for (const char c : s) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 10
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, static_cast<Int>(base), &value) ||
        __builtin_add_overflow(value, static_cast<Int>(digit), &value)) {
      Fail("an integer is beyond 128 bits");
    }
  }
  return negative ? -value : value;
}

std::optional<double> ParseDouble(std::string_view text) {
  bool ok = true;
  std::string s = StripUnderscores(Normalize(text), &ok);
  if (!ok || s.empty()) return std::nullopt;
  bool negative = false;
  if (s[0] == '-' || s[0] == '+') {
    negative = s[0] == '-';
    s.erase(0, 1);
  }
  double value = 0;
  std::string lower = s;
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  if (lower == "inf" || lower == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (lower == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (s.empty() || !((s[0] >= '0' && s[0] <= '9') || s[0] == '.')) return std::nullopt;
    const auto result = std::from_chars(s.data(), s.data() + s.size(), value);
    if (result.ptr != s.data() + s.size() || result.ec == std::errc::invalid_argument) {
      return std::nullopt;
    }
    if (result.ec == std::errc::result_out_of_range) {
      // from_chars leaves the value alone: too large is infinite, too small is zero.
      const std::size_t e = lower.find('e');
      const bool tiny = e != std::string::npos && lower.find('-', e) != std::string::npos;
      value = tiny ? 0.0 : std::numeric_limits<double>::infinity();
    }
  }
  return negative ? -value : value;
}

Text Str(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return Text();
    case Value::Kind::kString:
      return value.text();
    default: {
      Text out;
      AppendRepr(out, value);
      return out;
    }
  }
}

void AppendRepr(Text& out, const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out.Append("Undefined", true);
      return;
    case Value::Kind::kNone:
      out.Append("None", true);
      return;
    case Value::Kind::kBool:
      out.Append(value.as_bool() ? "True" : "False", true);
      return;
    case Value::Kind::kInt:
      out.Append(IntToString(value.as_int()), true);
      return;
    case Value::Kind::kFloat:
      out.Append(DoubleRepr(value.as_double()), true);
      return;
    case Value::Kind::kString:
      AppendStringRepr(out, value.text());
      return;
    case Value::Kind::kList:
      AppendListRepr(out, value.list());
      return;
    case Value::Kind::kDict:
      AppendDictRepr(out, value.dict());
      return;
    case Value::Kind::kObject:
      AppendObjectRepr(out, value);
      return;
  }
}

}  // namespace bakestone::chat
