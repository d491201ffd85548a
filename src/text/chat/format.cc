// Python's three ways to format: '%d' % x, '{:>8}'.format(x), and format specs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/chat/builtins.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

constexpr int kMaxWidth = 10'000;  // of a field; wider is an attack, not a layout

struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false, zero = false;
  int width = 0;
  char grouping = 0;
  int precision = -1;
  char type = 0;
};

int ReadNumber(std::string_view s, std::size_t& i) {
  int value = 0;
  while (i < s.size() && s[i] >= '0' && s[i] <= '9') {
    value = value * 10 + (s[i++] - '0');
    if (value > kMaxWidth) FailF("a format is wider than {} characters", kMaxWidth);
  }
  return value;
}

Spec ParseSpec(std::string_view s) {
  Spec spec;
  std::size_t i = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!s.empty()) {
    std::size_t after = 0;
    NextCodePoint(s, after);
    if (after < s.size() && is_align(s[after])) {
      spec.fill = s.substr(0, after);
      spec.align = s[after];
      i = after + 1;
    } else if (is_align(s[0])) {
      spec.align = s[i++];
    }
  }
  const auto take = [&](std::string_view any) {
    return i < s.size() && any.find(s[i]) != std::string_view::npos;
  };
  if (take("+- ")) spec.sign = s[i++];
  if (take("#")) spec.alternate = (++i, true);
  if (take("0")) spec.zero = (++i, true);
  spec.width = ReadNumber(s, i);
  if (take(",_")) spec.grouping = s[i++];
  if (take(".")) {
    ++i;
    if (!take("0123456789")) Fail("Format specifier missing precision");
    spec.precision = ReadNumber(s, i);
  }
  if (i < s.size()) spec.type = s[i++];
  if (i != s.size()) FailF("Invalid format specifier '{}'", s);
  return spec;
}

std::string InBase(Int value, unsigned base, bool upper) {
  __extension__ unsigned __int128 rest =
      value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  std::string out;
  do {
    const auto digit = static_cast<unsigned>(rest % base);
    out.insert(out.begin(), (upper ? "0123456789ABCDEF" : "0123456789abcdef")[digit]);
    rest /= base;
  } while (rest != 0);
  return out;
}

// Digits of |value| as C's and Python's %f, %e and %g agree on them.
std::string FloatDigits(double value, char type, int precision, bool alternate) {
  const double d = std::fabs(value);
  if (std::isnan(d)) return type >= 'a' ? "nan" : "NAN";
  if (std::isinf(d)) return type >= 'a' ? "inf" : "INF";
  switch (type) {
    case 'f':
    case 'F':
      return alternate ? fmt::format("{:#.{}f}", d, precision)
                       : fmt::format("{:.{}f}", d, precision);
    case 'e':
      return fmt::format("{:.{}e}", d, precision);
    case 'E':
      return fmt::format("{:.{}E}", d, precision);
    case 'G':
      return fmt::format("{:.{}G}", d, precision);
    default:
      return alternate ? fmt::format("{:#.{}g}", d, precision)
                       : fmt::format("{:.{}g}", d, precision);
  }
}

std::string Group(const std::string& digits, char separator, std::size_t every) {
  std::size_t n = 0;
  while (n < digits.size() && std::isxdigit(static_cast<unsigned char>(digits[n])) != 0) ++n;
  std::string out = digits.substr(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (i > 0 && i % every == 0) out.insert(out.begin(), separator);
    out.insert(out.begin(), digits[n - 1 - i]);
  }
  return out;
}

std::string Zeros(std::size_t have, int width) {
  return have < static_cast<std::size_t>(width)
             ? std::string(static_cast<std::size_t>(width) - have, '0')
             : "";
}

Text Padded(const Text& body, const Spec& spec, char default_align) {
  const std::size_t length = body.length();
  const std::size_t pad = static_cast<std::size_t>(spec.width) > length
                              ? static_cast<std::size_t>(spec.width) - length
                              : 0;
  const char align = spec.align != 0 ? spec.align : default_align;
  const std::size_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
  Text out;
  for (std::size_t i = 0; i < left; ++i) out.Append(spec.fill, true);
  out.Append(body);
  for (std::size_t i = left; i < pad; ++i) out.Append(spec.fill, true);
  return out;
}

Text PadNumber(const std::string& sign, const std::string& digits, Spec spec) {
  if (spec.zero && spec.align == 0) {
    spec.align = '=';
    spec.fill = "0";
  }
  if (spec.align != '=') return Padded(Text::Trusted(sign + digits), spec, '>');
  Spec inner = spec;
  inner.align = '>';
  inner.width = std::max(0, spec.width - static_cast<int>(sign.size()));
  Text out = Text::Trusted(sign);
  out.Append(Padded(Text::Trusted(digits), inner, '>'));
  return out;
}

Text FormatInt(Int value, const Spec& spec) {
  if (spec.precision >= 0) Fail("Precision not allowed in integer format specifier");
  std::string sign = value < 0 ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  if (spec.type == 'c') {
    if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      Fail("%c arg not in range(0x110000)");
    }
    std::string c;
    AppendUtf8(c, static_cast<char32_t>(value));
    return Padded(Text::Trusted(c), spec, '<');
  }
  const unsigned base = spec.type == 'x' || spec.type == 'X' ? 16
                        : spec.type == 'o'                   ? 8
                        : spec.type == 'b'                   ? 2
                                                             : 10;
  std::string digits = InBase(value, base, spec.type == 'X');
  if (spec.grouping != 0) digits = Group(digits, spec.grouping, base == 10 ? 3 : 4);
  if (spec.alternate && base != 10) sign += std::string("0") + spec.type;
  return PadNumber(sign, digits, spec);
}

Text FormatDouble(double value, Spec spec) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  std::string digits;
  if (spec.type == 0 && spec.precision < 0) {
    digits = DoubleRepr(std::fabs(value));
  } else if (spec.type == '%') {
    digits = FloatDigits(value * 100, 'f', spec.precision < 0 ? 6 : spec.precision, false) + "%";
  } else {
    const char type = spec.type == 0 || spec.type == 'n' ? 'g' : spec.type;
    int precision = spec.precision < 0 ? 6 : spec.precision;
    if ((type == 'g' || type == 'G') && precision == 0) precision = 1;
    digits = FloatDigits(value, type, precision, spec.alternate);
    if (spec.type == 0 && std::isfinite(value) && digits.find_first_of(".e") == std::string::npos) {
      digits += ".0";
    }
  }
  if (spec.grouping != 0) digits = Group(digits, spec.grouping, 3);
  return PadNumber(sign, digits, spec);
}

std::string PlainSpec(const Spec& spec, char type) {
  return std::string(1, type != 0 ? type : spec.type);
}

// One conversion of a % format, and its argument.
class PercentArgs {
 public:
  explicit PercentArgs(const Value& args) : args_(args) {}
  const Value& Next() {
    if (!args_.is_tuple()) {
      if (used_++ > 0) Fail("not enough arguments for format string");
      return args_;
    }
    if (used_ >= args_.list().items.size()) Fail("not enough arguments for format string");
    return args_.list().items[used_++];
  }
  const Value& Key(const std::string& name) {
    if (!args_.is_dict()) Fail("format requires a mapping");
    used_ = 1;
    const Value* found = args_.dict().Find(name);
    if (found == nullptr) FailF("key '{}' is missing", name);
    return *found;
  }
  void Finish() const {
    const bool all = args_.is_tuple()
                         ? used_ >= args_.list().items.size()
                         : used_ > 0 || args_.is_dict() || (args_.is_list() && !args_.is_tuple());
    if (!all) Fail("not all arguments converted during string formatting");
  }

 private:
  const Value& args_;
  std::size_t used_ = 0;
};

Text PercentString(Runtime& rt, const Value& value, const Spec& spec, bool markup) {
  Text body;
  if (spec.type == 's') {
    body = rt.ToText(value);
  } else {
    AppendRepr(body, value);
  }
  if (markup) body = EscapeHtml(body);
  if (spec.precision >= 0) {
    body = body.Slice(0, ByteOffset(body.view(), static_cast<std::size_t>(spec.precision)));
  }
  return Padded(body, spec, '>');
}

Text PercentOne(Runtime& rt, const Value& value, Spec spec, bool markup) {
  const char type = spec.type;
  if (type == 's' || type == 'r' || type == 'a') return PercentString(rt, value, spec, markup);
  if (type == 'c' && value.is_string()) {
    if (value.text().length() != 1) Fail("%c requires int or char");
    return Padded(value.text(), spec, '>');
  }
  if (!value.is_number()) {
    if (value.is_undefined()) Fail(value.undefined_message());
    FailF("%{} format: a real number is required, not {}", type, value.type_name());
  }
  if (std::string_view("eEfFgG").find(type) != std::string_view::npos) {
    if (spec.align == '<') spec.zero = false;
    return FormatDouble(value.as_double(), spec);
  }
  const bool hex = type == 'x' || type == 'X' || type == 'o';
  if (hex && !value.is_integral()) {
    FailF("%{} format: an integer is required, not {}", type, value.type_name());
  }
  if (value.is_float() && !(std::fabs(value.as_double()) < 1e38)) {
    Fail("cannot convert float to integer");
  }
  const Int number =
      value.is_float() ? static_cast<Int>(std::trunc(value.as_double())) : value.as_int();
  if (type == 'c') {
    spec.type = 'c';
    if (spec.align == 0) spec.align = '>';
    return FormatInt(number, spec);
  }
  const std::string sign = number < 0 ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  std::string digits = InBase(number, type == 'o' ? 8 : hex ? 16 : 10, type == 'X');
  digits = Zeros(digits.size(), std::max(spec.precision, 0)) + digits;
  if (spec.align == '<') spec.zero = false;
  return PadNumber(spec.alternate && hex ? sign + "0" + PlainSpec(spec, type) : sign, digits, spec);
}

// A field of str.format: "name.attr[0]!r:>{width}".
struct Field {
  std::string_view path, conversion, spec;
};

Field SplitField(std::string_view s) {
  Field f;
  std::size_t end = 0;
  int brackets = 0;
  while (end < s.size() && (brackets > 0 || (s[end] != ':' && s[end] != '!'))) {
    brackets += s[end] == '[';
    brackets -= s[end] == ']';
    ++end;
  }
  f.path = s.substr(0, end);
  if (end < s.size() && s[end] == '!') {
    const std::size_t colon = std::min(s.find(':', end), s.size());
    f.conversion = s.substr(end + 1, colon - end - 1);
    end = colon;
  }
  if (end < s.size()) f.spec = s.substr(end + 1);
  return f;
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& rt, const CallArgs& args) : rt_(rt), args_(args) {}

  Text Format(const Text& format, std::size_t begin, std::size_t end, int depth) {
    if (depth > 2) Fail("Max string recursion exceeded");
    const std::string_view s = format.view();
    Text out;
    for (std::size_t i = begin; i < end;) {
      const char c = s[i];
      if (c != '{' && c != '}') {
        const std::size_t next = std::min(s.find_first_of("{}", i), end);
        out.Append(format, i, next);
        i = next;
      } else if (i + 1 < end && s[i + 1] == c) {
        out.Append(format, i, i + 1);
        i += 2;
      } else if (c == '}') {
        Fail("Single '}' encountered in format string");
      } else {
        const std::size_t close = MatchingBrace(s, i, end);
        const Field field = SplitField(s.substr(i + 1, close - i - 1));
        const Value value = Lookup(field.path);
        Text spec;
        if (!field.spec.empty()) {
          const auto at = static_cast<std::size_t>(field.spec.data() - s.data());
          spec = Format(format, at, at + field.spec.size(), depth + 1);
        }
        out.Append(Convert(value, field.conversion, spec.view()));
        i = close + 1;
      }
      if (static_cast<std::int64_t>(out.size()) > rt_.budget.limits().max_string_bytes) {
        Fail("a formatted string is too long");
      }
    }
    return out;
  }

 private:
  static std::size_t MatchingBrace(std::string_view s, std::size_t open, std::size_t end) {
    int depth = 0;
    for (std::size_t i = open; i < end; ++i) {
      depth += s[i] == '{';
      depth -= s[i] == '}';
      if (depth == 0) return i;
    }
    Fail("expected '}' before end of string");
  }

  Text Convert(const Value& value, std::string_view conversion, std::string_view spec) {
    if (conversion.empty()) return FormatWithSpec(rt_, value, spec);
    Text text;
    if (conversion == "s") {
      text = rt_.ToText(value);
    } else if (conversion == "r") {
      AppendRepr(text, value);
    } else {
      FailF("Unknown conversion specifier '{}'", conversion);
    }
    return FormatWithSpec(rt_, rt_.MakeString(std::move(text)), spec);
  }

  Value Positional(std::size_t index) {
    if (index >= args_.positional.size()) {
      FailF("Replacement index {} out of range for positional args tuple", index);
    }
    return args_.positional[index];
  }

  Value First(std::string_view name) {
    if (name.empty()) return Positional(automatic_++);
    std::size_t i = 0;
    const int index = ReadNumber(name, i);
    if (i == name.size()) return Positional(static_cast<std::size_t>(index));
    for (const auto& [key, value] : args_.keyword) {
      if (key == name) return value;
    }
    FailF("format: no argument '{}'", name);
  }

  Value Lookup(std::string_view path) {
    std::size_t i = std::min(path.find_first_of(".["), path.size());
    Value value = First(path.substr(0, i));
    while (i < path.size()) {
      const bool item = path[i] == '[';
      const std::size_t end =
          item ? path.find(']', i) : std::min(path.find_first_of(".[", i + 1), path.size());
      if (end == std::string_view::npos) Fail("Missing ']' in format string");
      const std::string_view name = path.substr(i + 1, end - i - 1);
      if (name.empty()) Fail("Empty attribute in format string");
      std::size_t digits = 0;
      const int index = item ? ReadNumber(name, digits) : 0;
      const Value key =
          item && digits == name.size() ? Value(index) : rt_.MakeString(std::string(name));
      value = item ? GetItem(rt_, value, key) : GetAttribute(rt_, value, key);
      i = item ? end + 1 : end;
    }
    return value;
  }

  Runtime& rt_;
  const CallArgs& args_;
  std::size_t automatic_ = 0;
};

}  // namespace

Text FormatWithSpec(Runtime& rt, const Value& value, std::string_view text) {
  if (text.empty()) return rt.ToText(value);
  Spec spec = ParseSpec(text);
  rt.budget.Work(static_cast<std::size_t>(spec.width));
  if (value.is_string()) {
    if (spec.type != 0 && spec.type != 's') {
      FailF("Unknown format code '{}' for object of type 'str'", spec.type);
    }
    if (spec.zero && spec.align == 0) spec.fill = "0";
    const Text& body = value.text();
    if (spec.precision < 0) return Padded(body, spec, '<');
    return Padded(body.Slice(0, ByteOffset(body.view(), static_cast<std::size_t>(spec.precision))),
                  spec, '<');
  }
  const bool float_type =
      std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos && spec.type != 0;
  if (value.is_integral() && !float_type) {
    if (spec.type != 0 && std::string_view("bcdoxXn").find(spec.type) == std::string_view::npos) {
      FailF("Unknown format code '{}' for object of type 'int'", spec.type);
    }
    return FormatInt(value.as_int(), spec);
  }
  if (value.is_number()) {
    if (spec.type != 0 && spec.type != 'n' && !float_type) {
      FailF("Unknown format code '{}' for object of type 'float'", spec.type);
    }
    return FormatDouble(value.as_double(), spec);
  }
  FailF("unsupported format string passed to {}.__format__", value.type_name());
}

Text PercentFormat(Runtime& rt, const Text& format, const Value& values) {
  Text out;
  out.set_markup(format.markup());
  PercentArgs args(values);
  const std::string_view s = format.view();
  for (std::size_t i = 0; i < s.size();) {
    if (s[i] != '%') {
      const std::size_t next = std::min(s.find('%', i), s.size());
      out.Append(format, i, next);
      i = next;
      continue;
    }
    const std::size_t at = i++;
    const Value* keyed = nullptr;
    if (i < s.size() && s[i] == '(') {
      const std::size_t close = s.find(')', i);
      if (close == std::string_view::npos) Fail("incomplete format key");
      keyed = &args.Key(std::string(s.substr(i + 1, close - i - 1)));
      i = close + 1;
    }
    Spec spec;
    for (; i < s.size() && std::string_view("-+ #0").find(s[i]) != std::string_view::npos; ++i) {
      if (s[i] == '-') {
        spec.align = '<';
      } else if (s[i] == '#') {
        spec.alternate = true;
      } else if (s[i] == '0') {
        spec.zero = true;
      } else if (spec.sign != '+') {
        spec.sign = s[i];
      }
    }
    spec.width = ReadNumber(s, i);
    if (i < s.size() && s[i] == '.') spec.precision = ReadNumber(s, ++i);
    if (i >= s.size()) Fail("incomplete format");
    spec.type = s[i++];
    if (spec.type == 'd' || spec.type == 'i' || spec.type == 'u') spec.type = 'd';
    if (spec.type == '%') {
      out.Append(format, at, at + 1);
      continue;
    }
    if (std::string_view("srdxXoeEfFgGc").find(spec.type) == std::string_view::npos) {
      FailF("unsupported format character '{}'", spec.type);
    }
    out.Append(PercentOne(rt, keyed != nullptr ? *keyed : args.Next(), spec, format.markup()));
    if (static_cast<std::int64_t>(out.size()) > rt.budget.limits().max_string_bytes) {
      Fail("a formatted string is too long");
    }
  }
  args.Finish();
  return out;
}

Text BraceFormat(Runtime& rt, const Text& format, const CallArgs& args) {
  return BraceFormatter(rt, args).Format(format, 0, format.size(), 0);
}

}  // namespace bakestone::chat
