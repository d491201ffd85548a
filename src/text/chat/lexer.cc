#include "text/chat/lexer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

bool IsDigitByte(char c) { return c >= '0' && c <= '9'; }

// One line ending for all, and the last newline dropped, as jinja2 does before it reads.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : s_(std::move(source)) {}

  std::vector<Token> Run() {
    while (pos_ < s_.size()) Root();
    Push(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Fail(std::string_view what) const {
    Throw(ErrorCode::kInvalidArgument, "line {}: {}", line_, what);
  }

  bool At(std::string_view text) const {
    return std::string_view(s_).substr(pos_).starts_with(text);
  }

  // Moves to `to`, counting lines.
  void Advance(std::size_t to) {
    line_ += static_cast<int>(std::count(s_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         s_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    pos_ = to;
    line_starting_ = to > 0 && s_[to - 1] == '\n';
  }

  void Push(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), Value(), line_});
  }

  std::size_t SkipSpace(std::size_t at) const {
    while (at < s_.size()) {
      std::size_t next = at;
      if (!IsSpace(NextCodePoint(s_, next))) break;
      at = next;
    }
    return at;
  }

  std::size_t FindTag(std::size_t from) const {
    for (std::size_t i = from; (i = s_.find('{', i)) != std::string::npos; ++i) {
      if (i + 1 < s_.size() && (s_[i + 1] == '{' || s_[i + 1] == '%' || s_[i + 1] == '#')) return i;
    }
    return s_.size();
  }

  // The template text before a tag, with what the tag's sign (or lstrip_blocks) takes away.
  void Data(std::size_t begin, std::size_t end, char sign, bool variable) {
    std::string_view text = std::string_view(s_).substr(begin, end - begin);
    const bool starting = line_starting_;
    if (sign == '-') {
      while (!text.empty()) {
        const std::size_t at = PreviousCodePoint(text, text.size());
        std::size_t p = at;
        if (!IsSpace(NextCodePoint(text, p))) break;
        text = text.substr(0, at);
      }
    } else if (sign != '+' && !variable) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || starting) && SkipSpaceIn(text, line_begin) == text.size()) {
        text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) Push(Token::Kind::kData, std::string(text));
    Advance(end);
  }

  static std::size_t SkipSpaceIn(std::string_view text, std::size_t at) {
    while (at < text.size()) {
      std::size_t next = at;
      if (!IsSpace(NextCodePoint(text, next))) break;
      at = next;
    }
    return at;
  }

  void Root() {
    const std::size_t tag = FindTag(pos_);
    if (tag == s_.size()) {
      if (pos_ < tag) Push(Token::Kind::kData, s_.substr(pos_));
      Advance(tag);
      return;
    }
    const char kind = s_[tag + 1];
    const char next = tag + 2 < s_.size() ? s_[tag + 2] : 0;
    const char sign = next == '-' || next == '+' ? next : 0;
    Data(pos_, tag, sign, kind == '{');
    const std::size_t inside = tag + (sign != 0 ? 3 : 2);
    if (kind == '#') return Comment(inside);
    if (kind == '%' && IsRawTag(inside)) return Raw(inside);
    Push(kind == '{' ? Token::Kind::kVariableBegin : Token::Kind::kBlockBegin, s_.substr(tag, 2));
    Advance(inside);
    Inside(kind == '{');
  }

  // Past the end of a tag: "-" takes all white space, trim_blocks one newline unless "+".
  std::size_t AfterEnd(std::size_t end, char sign, bool trims) const {
    if (sign == '-') return SkipSpace(end);
    return trims && sign != '+' && end < s_.size() && s_[end] == '\n' ? end + 1 : end;
  }

  void Comment(std::size_t inside) {
    const std::size_t end = s_.find("#}", inside);
    if (end == std::string::npos) Fail("a comment is not closed: expected '#}'");
    const char sign = end > inside && (s_[end - 1] == '-' || s_[end - 1] == '+') ? s_[end - 1] : 0;
    Advance(AfterEnd(end + 2, sign, true));
  }

  // Whether a block tag at `at` is "word" and nothing else; `end` is past its closing.
  bool MatchTag(std::size_t at, std::string_view word, std::size_t* end, char* sign) const {
    at = SkipSpace(at);
    if (!std::string_view(s_).substr(at).starts_with(word)) return false;
    at = SkipSpace(at + word.size());
    *sign = at < s_.size() && (s_[at] == '-' || s_[at] == '+') ? s_[at] : '\0';
    if (*sign != 0) ++at;
    if (!std::string_view(s_).substr(at).starts_with("%}")) return false;
    *end = at + 2;
    return true;
  }

  bool IsRawTag(std::size_t inside) const {
    std::size_t end = 0;
    char sign = 0;
    return MatchTag(inside, "raw", &end, &sign) && sign != '+';
  }

  void Raw(std::size_t inside) {
    std::size_t begin = 0;
    char sign = 0;
    MatchTag(inside, "raw", &begin, &sign);
    Advance(AfterEnd(begin, sign, false));
    for (std::size_t i = pos_; (i = s_.find("{%", i)) != std::string::npos; ++i) {
      const char lead =
          i + 2 < s_.size() && (s_[i + 2] == '-' || s_[i + 2] == '+') ? s_[i + 2] : '\0';
      std::size_t end = 0;
      if (!MatchTag(i + (lead != 0 ? 3 : 2), "endraw", &end, &sign)) continue;
      Data(pos_, i, lead, false);
      Advance(AfterEnd(end, sign, true));
      return;
    }
    Fail("a raw block is not closed: expected '{% endraw %}'");
  }

  // If the tag closes here: past its end, else 0.
  std::size_t TagEnd(bool variable) const {
    const std::string_view close = variable ? "}}" : "%}";
    const char c = s_[pos_];
    if (c == '-' || (c == '+' && !variable)) {
      if (!std::string_view(s_).substr(pos_ + 1).starts_with(close)) return 0;
      return AfterEnd(pos_ + 3, c, !variable);
    }
    return At(close) ? AfterEnd(pos_ + 2, 0, !variable) : 0;
  }

  void Inside(bool variable) {
    std::string brackets;
    while (true) {
      Advance(SkipSpace(pos_));
      if (pos_ == s_.size()) {
        Fail(variable ? "expected '}}' before the end" : "expected '%}' before the end");
      }
      if (brackets.empty()) {
        if (const std::size_t end = TagEnd(variable); end != 0) {
          Push(variable ? Token::Kind::kVariableEnd : Token::Kind::kBlockEnd,
               variable ? "}}" : "%}");
          Advance(end);
          return;
        }
      }
      const char c = s_[pos_];
      if (c == '"' || c == '\'') {
        String();
      } else if (IsDigitByte(c)) {
        Number();
      } else if (IsNameAt(pos_)) {
        Name();
      } else {
        Operator(brackets);
      }
    }
  }

  bool IsNameAt(std::size_t at) const {
    const char32_t c = NextCodePoint(s_, at);
    return IsWord(c);
  }

  void Name() {
    std::size_t end = pos_;
    while (end < s_.size()) {
      std::size_t next = end;
      if (!IsWord(NextCodePoint(s_, next))) break;
      end = next;
    }
    Push(Token::Kind::kName, s_.substr(pos_, end - pos_));
    Advance(end);
  }

  std::size_t Digits(std::size_t at) const {
    while (at < s_.size() && (IsDigitByte(s_[at]) ||
                              (s_[at] == '_' && at + 1 < s_.size() && IsDigitByte(s_[at + 1])))) {
      ++at;
    }
    return at;
  }

  void Number() {
    const char second = pos_ + 1 < s_.size() ? static_cast<char>(s_[pos_ + 1] | 0x20) : '\0';
    std::size_t end = pos_;
    Token token{Token::Kind::kInteger, "", Value(), line_};
    if (s_[pos_] == '0' && (second == 'x' || second == 'o' || second == 'b')) {
      end = pos_ + 2;
      while (end < s_.size() &&
             (std::isalnum(static_cast<unsigned char>(s_[end])) != 0 || s_[end] == '_')) {
        ++end;
      }
    } else {
      end = Digits(pos_);
      // A "." after a "." is a subscript (x.0.1), never a fraction.
      const bool after_dot = pos_ > 0 && s_[pos_ - 1] == '.';
      std::size_t fraction = end;
      if (!after_dot && end + 1 < s_.size() && s_[end] == '.' && IsDigitByte(s_[end + 1])) {
        fraction = Digits(end + 1);
      }
      std::size_t exponent = fraction;
      if (!after_dot && exponent < s_.size() && (s_[exponent] | 0x20) == 'e') {
        ++exponent;
        if (exponent < s_.size() && (s_[exponent] == '+' || s_[exponent] == '-')) ++exponent;
        exponent = exponent < s_.size() && IsDigitByte(s_[exponent]) ? Digits(exponent) : fraction;
      }
      if (exponent != end) token.kind = Token::Kind::kFloat;
      end = exponent;
    }
    token.text = s_.substr(pos_, end - pos_);
    if (token.kind == Token::Kind::kFloat) {
      token.number = Value(ParseDouble(token.text).value_or(0));
    } else {
      const auto value = ParseInt(token.text, 0);
      if (!value) Fail("'" + token.text + "' is not a number");
      token.number = Value(*value);
    }
    tokens_.push_back(std::move(token));
    Advance(end);
  }

  void String() {
    const char quote = s_[pos_];
    std::size_t i = pos_ + 1;
    std::string value;
    while (true) {
      if (i >= s_.size()) Fail("a string is not closed");
      if (s_[i] == quote) break;
      if (s_[i] != '\\') {
        value += s_[i++];
        continue;
      }
      if (++i >= s_.size()) Fail("a string is not closed");
      i = Escape(i, value);
    }
    Push(Token::Kind::kString, std::move(value));
    Advance(i + 1);
  }

  // One escape, `i` at the character after the backslash; returns what follows it.
  std::size_t Escape(std::size_t i, std::string& out) const {
    constexpr std::string_view kFrom = "abfnrtv\\'\"";
    constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
    const char c = s_[i];
    if (const std::size_t at = kFrom.find(c); at != std::string_view::npos) {
      out += kTo[at];
      return i + 1;
    }
    if (c == '\n') return i + 1;
    const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    std::uint32_t code = 0;
    if (digits != 0) {
      for (std::size_t k = 1; k <= digits; ++k) {
        const char h = i + k < s_.size() ? s_[i + k] : 'z';
        if (std::isxdigit(static_cast<unsigned char>(h)) == 0) {
          Fail("a \\x, \\u or \\U escape is cut short");
        }
        code = code << 4 |
               static_cast<std::uint32_t>(IsDigitByte(h) ? h - '0' : (h | 0x20) - 'a' + 10);
      }
      i += digits + 1;
    } else if (c >= '0' && c <= '7') {
      for (int k = 0; k < 3 && i < s_.size() && s_[i] >= '0' && s_[i] <= '7'; ++k) {
        code = code * 8 + static_cast<std::uint32_t>(s_[i++] - '0');
      }
    } else if (c == 'N') {
      Fail("\\N{...} escapes are not supported");
    } else {
      out += '\\';
      return i;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      Fail("an escape is not a Unicode character");
    }
    AppendUtf8(out, code);
    return i;
  }

  void Operator(std::string& brackets) {
    constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto* it =
        std::find_if(kOperators.begin(), kOperators.end(), [&](auto op) { return At(op); });
    if (it == kOperators.end()) {
      std::size_t next = pos_;
      NextCodePoint(s_, next);
      Fail("unexpected character '" + s_.substr(pos_, next - pos_) + "'");
    }
    const std::string_view op = *it;
    if (op == "(" || op == "[" || op == "{") {
      brackets += op == "(" ? ')' : op == "[" ? ']' : '}';
    } else if (op == ")" || op == "]" || op == "}") {
      if (brackets.empty()) Fail("unexpected '" + std::string(op) + "'");
      if (brackets.back() != op[0]) {
        Fail("unexpected '" + std::string(op) + "', expected '" + brackets.back() + "'");
      }
      brackets.pop_back();
    }
    Push(Token::Kind::kOperator, std::string(op));
    Advance(pos_ + op.size());
  }

  std::string s_;
  std::size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string Token::Describe() const {
  switch (kind) {
    case Kind::kEnd:
      return "the end of the template";
    case Kind::kString:
      return "string '" + text + "'";
    case Kind::kData:
      return "text";
    default:
      return "'" + text + "'";
  }
}

std::vector<Token> Tokenize(std::string_view source) {
  if (ToValidUtf8(source) != source) {
    Throw(ErrorCode::kInvalidArgument, "line 1: the template is not UTF-8");
  }
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace bakestone::chat
