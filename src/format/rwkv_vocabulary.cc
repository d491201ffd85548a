// The grammar: a line a token, ascending from 1, by spaces
//
//   ID LITERAL LENGTH
//
//   LITERAL  one of Python's: '...' or "..." (characters, in UTF-8) or b'...' or b"..." (bytes),
//            with the escapes \\ \' \" \a \b \f \n \r \t \v \xHH and, of characters, \uHHHH and
//            \UHHHHHHHH
//   LENGTH   of the token in bytes
#include "format/rwkv_vocabulary.h"

#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr size_t kMostTokens = size_t{1} << 24;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool ParseNumber(std::string_view text, size_t* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc{} && end == text.data() + text.size();
}

// False where it is not a literal.
bool ParseLiteral(std::string_view text, std::string* bytes) {
  const bool raw = text.starts_with('b');
  if (raw) text.remove_prefix(1);
  if (text.size() < 2 || (text[0] != '\'' && text[0] != '"') || text.back() != text[0]) {
    return false;
  }
  const char quote = text[0];
  text = text.substr(1, text.size() - 2);
  bytes->clear();
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == quote) return false;
    if (text[at] != '\\') {
      bytes->push_back(text[at]);
      continue;
    }
    if (++at == text.size()) return false;
    constexpr std::string_view kNames = "\\'\"abfnrtv", kBytes = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t name = kNames.find(text[at]); name != std::string_view::npos) {
      bytes->push_back(kBytes[name]);
      continue;
    }
    const size_t digits = text[at] == 'x'   ? 2
                          : raw             ? 0
                          : text[at] == 'u' ? 4
                          : text[at] == 'U' ? 8
                                            : 0;
    if (digits == 0 || text.size() - at <= digits) return false;
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const int digit = HexDigit(text[++at]);
      if (digit < 0) return false;
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    if (raw) {
      bytes->push_back(static_cast<char>(code));
    } else if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      return false;
    } else {
      AppendUtf8(code, bytes);
    }
  }
  return true;
}

}  // namespace

TokenizerSpec FromRwkvVocabulary(std::string_view text, std::string source) {
  TokenizerSpec spec;
  spec.source = std::move(source);
  spec.kind = TokenizerKind::kGreedy;
  spec.space_prefix = SpacePrefix::kNever;
  spec.strips_space = false;
  spec.tokens = {"<|rwkv_tokenizer_end_of_text|>"};
  spec.types = {TokenType::kControl};
  spec.bos = spec.eos = 0;
  std::string bytes;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const size_t first = line.find(' '), last = line.rfind(' ');
    size_t id = 0, length = 0;
    const bool parts = first != std::string_view::npos && last > first + 1 &&
                       ParseNumber(line.substr(0, first), &id) &&
                       ParseNumber(line.substr(last + 1), &length) &&
                       ParseLiteral(line.substr(first + 1, last - first - 1), &bytes);
    if (!parts || id != number || id >= kMostTokens || bytes.size() != length || bytes.empty()) {
      Throw(ErrorCode::kCorrupt,
            "{}: line {}: expected {}, a token in quotes and its length in bytes, found {}",
            spec.source, number, number, Quote(line.substr(0, 80)));
    }
    spec.tokens.push_back(bytes);
    spec.types.push_back(TokenType::kNormal);
  }
  return spec;
}

namespace {

// As Python writes them between single quotes; bytes beyond ASCII stay where `keep_wide`.
std::string Escaped(std::string_view bytes, bool keep_wide) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    const bool wide = byte >= 0x80 && keep_wide;
    if (c == '\\' || c == '\'') {
      text += {'\\', c};
    } else if (c == '\t' || c == '\n' || c == '\r') {
      text += {'\\', c == '\t' ? 't' : c == '\n' ? 'n' : 'r'};
    } else if (wide || (byte >= 0x20 && byte < 0x7F)) {
      text += c;
    } else {
      text += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return text;
}

}  // namespace

std::string ToRwkvVocabulary(const TokenizerSpec& spec) {
  const auto type = [&](size_t id) {
    return id < spec.types.size() ? spec.types[id] : TokenType::kNormal;
  };
  size_t count = spec.tokens.size();
  while (count > 0 && type(count - 1) == TokenType::kUnused) --count;
  std::string file;
  for (size_t id = 0; id < count; ++id) {
    const TokenType expected = id == 0 ? TokenType::kControl : TokenType::kNormal;
    const std::string& token = spec.tokens[id];
    if (type(id) != expected || token.empty()) {
      Throw(ErrorCode::kUnsupported,
            "{}: token {}: expected one that {}, as the lines of a vocabulary of RWKV have it, "
            "found {}",
            spec.source, id, id == 0 ? "no text has" : "texts have", Quote(token));
    }
    if (id == 0) continue;
    const bool characters = ToValidUtf8(token) == token;
    file += fmt::format("{} {}'{}' {}\n", id, characters ? "" : "b", Escaped(token, characters),
                        token.size());
  }
  return file;
}

std::string EscapeRwkvToken(std::string_view bytes) { return Escaped(bytes, /*keep_wide=*/false); }

std::string UnescapeRwkvToken(std::string_view text) {
  std::string bytes;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\\' || at + 1 == text.size()) {
      bytes.push_back(text[at]);
      continue;
    }
    const char name = text[++at];
    if (name == 'x' && text.size() - at > 2 && HexDigit(text[at + 1]) >= 0 &&
        HexDigit(text[at + 2]) >= 0) {
      bytes.push_back(static_cast<char>(HexDigit(text[at + 1]) * 16 + HexDigit(text[at + 2])));
      at += 2;
    } else {
      bytes.push_back(name == 't' ? '\t' : name == 'n' ? '\n' : name == 'r' ? '\r' : name);
    }
  }
  return bytes;
}

}  // namespace bakestone
