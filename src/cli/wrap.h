// Text in lines that fit a terminal. Any thread.
#pragma once

#include <cstddef>
#include <string>

namespace bakestone::cli {

// Breaks between words so that no line is longer than `width`, except by a word that is; every line
// after the first begins with `indent`.
std::string Wrap(const std::string& text, const std::string& indent, size_t width = 96);

}  // namespace bakestone::cli
