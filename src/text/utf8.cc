#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

void AppendUtf8(uint32_t codepoint, std::string* out) {
  const auto put = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (codepoint < 0x80) {
    put(codepoint);
  } else if (codepoint < 0x800) {
    put(0xC0 | codepoint >> 6);
    put(0x80 | (codepoint & 0x3F));
  } else if (codepoint < 0x10000) {
    put(0xE0 | codepoint >> 12);
    put(0x80 | (codepoint >> 6 & 0x3F));
    put(0x80 | (codepoint & 0x3F));
  } else {
    put(0xF0 | codepoint >> 18);
    put(0x80 | (codepoint >> 12 & 0x3F));
    put(0x80 | (codepoint >> 6 & 0x3F));
    put(0x80 | (codepoint & 0x3F));
  }
}

InvalidPart MeasureInvalid(const char* p, const char* end) noexcept {
  const auto lead = static_cast<uint8_t>(*p);
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const int wanted = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range is narrower after these leads (Unicode, table 3-7).
  const int low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const int high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (int i = 1; i < wanted; ++i) {
    if (p + i == end) return {i, true};
    const int byte = static_cast<uint8_t>(p[i]);
    if (byte < (i == 1 ? low : 0x80) || byte > (i == 1 ? high : 0xBF)) return {i, false};
  }
  return {1, false};
}

size_t AppendValidUtf8(std::string_view bytes, std::string* out) {
  const char* const end = bytes.data() + bytes.size();
  const char* p = bytes.data();
  const char* valid = p;
  while (p < end) {
    uint32_t codepoint;
    if (const int length = DecodeUtf8(p, end, &codepoint)) {
      p += length;
      continue;
    }
    out->append(valid, p);
    valid = p;
    const InvalidPart part = MeasureInvalid(p, end);
    if (part.unfinished) break;
    out->append(kReplacement);
    p += part.length;
    valid = p;
  }
  if (p == end) out->append(valid, p);
  return static_cast<size_t>(p - bytes.data());
}

std::string ToValidUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  if (AppendValidUtf8(bytes, &out) < bytes.size()) out.append(kReplacement);
  return out;
}

}  // namespace bakestone
