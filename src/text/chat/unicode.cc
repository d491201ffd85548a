#include "text/chat/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

namespace bakestone::chat {
namespace {

// Code points whose upper case is several code points (SpecialCasing.txt, the unconditional rows).
struct Expansion {
  char32_t from;
  std::array<char32_t, 3> to;  // zero-filled
};
constexpr Expansion kUpper[] = {
    {0xDF, {'S', 'S'}},
    {0x149, {0x2BC, 'N'}},
    {0x1F0, {'J', 0x30C}},
    {0x390, {0x399, 0x308, 0x301}},
    {0x3B0, {0x3A5, 0x308, 0x301}},
    {0x587, {0x535, 0x552}},
    {0x1E96, {'H', 0x331}},
    {0x1E97, {'T', 0x308}},
    {0x1E98, {'W', 0x30A}},
    {0x1E99, {'Y', 0x30A}},
    {0x1E9A, {'A', 0x2BE}},
    {0xFB00, {'F', 'F'}},
    {0xFB01, {'F', 'I'}},
    {0xFB02, {'F', 'L'}},
    {0xFB03, {'F', 'F', 'I'}},
    {0xFB04, {'F', 'F', 'L'}},
    {0xFB05, {'S', 'T'}},
    {0xFB06, {'S', 'T'}},
    {0xFB13, {0x544, 0x546}},
    {0xFB14, {0x544, 0x535}},
    {0xFB15, {0x544, 0x53B}},
    {0xFB16, {0x54E, 0x546}},
    {0xFB17, {0x544, 0x53D}},
};

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

const Expansion* FindExpansion(char32_t c) {
  const auto* it = std::lower_bound(std::begin(kUpper), std::end(kUpper), c,
                                    [](const Expansion& e, char32_t v) { return e.from < v; });
  return it != std::end(kUpper) && it->from == c ? it : nullptr;
}

char32_t Simple(utf8proc_int32_t (*map)(utf8proc_int32_t), char32_t c) {
  return static_cast<char32_t>(map(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace

char32_t NextCodePoint(std::string_view text, std::size_t& pos) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0x80U;
  };
  const unsigned lead = byte(pos);
  if (lead < 0x80) {
    ++pos;
    return lead;
  }
  const int extra = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  char32_t c = lead & (0x3FU >> extra);
  for (int i = 1; i <= extra; ++i) c = c << 6 | (byte(pos + i) & 0x3FU);
  pos = std::min(pos + 1 + extra, text.size());
  return c;
}

std::size_t PreviousCodePoint(std::string_view text, std::size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

void AppendUtf8(std::string& out, char32_t c) {
  std::array<utf8proc_uint8_t, 4> bytes;
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes.data());
  out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(n));
}

std::size_t CountCodePoints(std::string_view text) {
  std::size_t count = 0;
  for (const char b : text) count += (static_cast<unsigned char>(b) & 0xC0) != 0x80;
  return count;
}

std::size_t ByteOffset(std::string_view text, std::size_t index) {
  std::size_t pos = 0;
  while (pos < text.size()) {
    if ((static_cast<unsigned char>(text[pos]) & 0xC0) != 0x80 && index-- == 0) break;
    ++pos;
  }
  return pos;
}

std::string ToValidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  const auto* data = reinterpret_cast<const utf8proc_uint8_t*>(bytes.data());
  for (std::size_t pos = 0; pos < bytes.size();) {
    utf8proc_int32_t c = 0;
    const auto n =
        utf8proc_iterate(data + pos, static_cast<utf8proc_ssize_t>(bytes.size() - pos), &c);
    if (n <= 0) {
      out += "\xEF\xBF\xBD";
      ++pos;
    } else {
      out.append(bytes.substr(pos, static_cast<std::size_t>(n)));
      pos += static_cast<std::size_t>(n);
    }
  }
  return out;
}

bool IsSpace(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsLineBreak(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool IsAlpha(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }

bool IsDigit(char32_t c) {
  return IsDecimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0x1369 && c <= 0x1371) ||
         c == 0x2070 || (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
         (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247C) ||
         (c >= 0x2488 && c <= 0x2490) || (c >= 0x24F5 && c <= 0x24FD) || c == 0x24EA ||
         c == 0x24FF || (c >= 0x2776 && c <= 0x277E) || (c >= 0x2780 && c <= 0x2788) ||
         (c >= 0x278A && c <= 0x2792);
}

bool IsNumeric(char32_t c) {
  const auto category = Category(c);
  if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return true;
  constexpr char32_t kHan[] = {0x4E00, 0x4E03, 0x4E07, 0x4E09, 0x4E5D, 0x4E8C, 0x4E94, 0x4EBF,
                               0x5146, 0x516B, 0x516D, 0x5341, 0x5343, 0x56DB, 0x767E, 0x96F6};
  return std::binary_search(std::begin(kHan), std::end(kHan), c);
}

bool IsUpper(char32_t c) {
  return Category(c) == UTF8PROC_CATEGORY_LU || (c >= 0x2160 && c <= 0x216F) ||
         (c >= 0x24B6 && c <= 0x24CF);
}

bool IsLower(char32_t c) {
  return Category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA ||
         (c >= 0x2170 && c <= 0x217F) || (c >= 0x24D0 && c <= 0x24E9) ||
         (c >= 0x2B0 && c <= 0x2B8) || (c >= 0x1D2C && c <= 0x1D6A);
}

bool IsTitle(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LT; }

bool IsCased(char32_t c) { return IsUpper(c) || IsLower(c) || IsTitle(c); }

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  const auto category = Category(c);
  return category != UTF8PROC_CATEGORY_CN && !(category >= UTF8PROC_CATEGORY_ZS);
}

bool IsWord(char32_t c) { return c == '_' || IsAlpha(c) || IsNumeric(c); }

int DecimalValue(char32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (c < 0x80 || !IsDecimal(c)) return -1;
  // Decimal digits come in runs of ten that start at a zero: count back to the run's start.
  int value = 0;
  while (value < 9 && IsDecimal(c - 1 - static_cast<char32_t>(value))) ++value;
  return (c >= 0x1D7CE && c <= 0x1D7FF) ? static_cast<int>((c - 0x1D7CE) % 10) : value;
}

void AppendUpper(std::string& out, char32_t c) {
  if (const Expansion* e = FindExpansion(c)) {
    for (const char32_t to : e->to) {
      if (to != 0) AppendUtf8(out, to);
    }
  } else {
    AppendUtf8(out, Simple(utf8proc_toupper, c));
  }
}

void AppendTitle(std::string& out, char32_t c) {
  const Expansion* e = FindExpansion(c);
  if (e == nullptr) {
    AppendUtf8(out, Simple(utf8proc_totitle, c));
    return;
  }
  AppendUtf8(out, e->to[0]);  // the first stays upper case, the rest is lower case
  for (std::size_t i = 1; i < e->to.size() && e->to[i] != 0; ++i) {
    AppendUtf8(out, Simple(utf8proc_tolower, e->to[i]));
  }
}

void AppendLower(std::string& out, char32_t c, bool final_sigma) {
  if (c == 0x130) {
    out += "i\xCC\x87";
  } else if (c == 0x3A3) {
    AppendUtf8(out, final_sigma ? 0x3C2 : 0x3C3);
  } else {
    AppendUtf8(out, Simple(utf8proc_tolower, c));
  }
}

void AppendFolded(std::string& out, char32_t c) {
  std::array<utf8proc_int32_t, 8> folded;
  int boundary = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded.data(),
                                         folded.size(), UTF8PROC_CASEFOLD, &boundary);
  if (n <= 0 || n > static_cast<utf8proc_ssize_t>(folded.size())) {
    AppendUtf8(out, c);
    return;
  }
  for (utf8proc_ssize_t i = 0; i < n; ++i) AppendUtf8(out, static_cast<char32_t>(folded[i]));
}

}  // namespace bakestone::chat
