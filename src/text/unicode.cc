#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

bool IsWhiteSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

uint8_t ClassOf(uint32_t codepoint) {
  if (IsWhiteSpace(codepoint)) {
    return codepoint == '\n' || codepoint == '\r' ? kSpace | kNewline : kSpace;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(codepoint))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark;
    case UTF8PROC_CATEGORY_PC:
      return kConnector;
    default:
      return 0;
  }
}

// Decomposes, orders and composes one run of valid text. utf8proc's own ordering is an insertion
// sort:
// quadratic on a long run of marks, so the ordering is done here.
void AppendNfc(std::string_view valid, std::string* out) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(valid.size());
  const char* const end = valid.data() + valid.size();
  for (const char* p = valid.data(); p < end;) {
    uint32_t codepoint = 0;
    p += DecodeUtf8(p, end, &codepoint);
    utf8proc_int32_t parts[8];  // a canonical decomposition has at most 4 code points
    int last_boundclass = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(codepoint), parts, 8,
                                               UTF8PROC_DECOMPOSE, &last_boundclass);
    BAKESTONE_CHECK(count >= 0 && count <= 8);
    points.insert(points.end(), parts, parts + count);
  }
  const auto combining = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (size_t i = 0; i < points.size();) {
    size_t j = i + 1;
    if (combining(points[i]) != 0) {
      while (j < points.size() && combining(points[j]) != 0) ++j;
      std::stable_sort(points.begin() + static_cast<ptrdiff_t>(i),
                       points.begin() + static_cast<ptrdiff_t>(j),
                       [&](auto a, auto b) { return combining(a) < combining(b); });
    }
    i = j;
  }
  const auto count =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  BAKESTONE_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<uint32_t>(points[static_cast<size_t>(i)]), out);
  }
}

}  // namespace

const CharClasses& CharClasses::Get() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  std::map<std::vector<uint8_t>, uint16_t> known;
  std::vector<uint8_t> block(256);
  for (uint32_t high = 0; high <= 0x10FF; ++high) {
    for (uint32_t low = 0; low < 256; ++low) block[low] = ClassOf(high << 8 | low);
    const auto [it, added] = known.emplace(block, static_cast<uint16_t>(known.size()));
    if (added) blocks_.insert(blocks_.end(), block.begin(), block.end());
    index_.push_back(it->second);
  }
}

bool IsTriviallyNfc(std::string_view text) {
  // U+0300 is CC 80: every character below it has a lead byte under CC.
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
}

std::string ToNfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const char* const end = text.data() + text.size();
  const char* p = text.data();
  const char* valid = p;
  const auto flush = [&] {
    if (p > valid) AppendNfc({valid, static_cast<size_t>(p - valid)}, &out);
  };
  while (p < end) {
    uint32_t codepoint;
    if (const int length = DecodeUtf8(p, end, &codepoint)) {
      p += length;
      continue;
    }
    flush();
    out.push_back(*p++);
    valid = p;
  }
  flush();
  return out;
}

}  // namespace bakestone
