#include "base/quote.h"

#include <fmt/format.h>

namespace bakestone {

std::string Quote(std::string_view text) {
  constexpr size_t kLongest = 64;
  std::string quoted = "'";
  for (const char c : text.substr(0, kLongest)) {
    if (c >= ' ' && c <= '~' && c != '\'' && c != '\\') {
      quoted += c;
    } else {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  quoted += '\'';
  if (text.size() > kLongest) quoted += fmt::format("... ({} bytes)", text.size());
  return quoted;
}

}  // namespace bakestone
