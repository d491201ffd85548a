#include "cli/wrap.h"

#include <algorithm>

namespace bakestone::cli {

std::string Wrap(const std::string& text, const std::string& indent, size_t width) {
  std::string wrapped;
  size_t column = indent.size();  // 0: at the start of a line that is not yet indented
  bool first_word = true;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    const size_t length = end - begin;
    if (!first_word && column + 1 + length > width) {
      wrapped += '\n';
      column = 0;
    } else if (!first_word) {
      wrapped += ' ';
      ++column;
    }
    if (column == 0 && length > 0 && !wrapped.empty()) {
      wrapped += indent;
      column = indent.size();
    }
    wrapped.append(text, begin, length);
    column += length;
    first_word = false;
    if (end < text.size() && text[end] == '\n') {
      wrapped += '\n';
      column = 0;
      first_word = true;
    }
    begin = end + 1;
  }
  return wrapped;
}

}  // namespace bakestone::cli
