// Regular expressions (ECMA 262's, as JSON Schema takes them) as expressions of a grammar
// (grammar/ebnf.h): literals, classes, groups, alternatives, counted repeats, and ^ and $ at the
// ends of the whole. What else they have is not regular, or is not read here, and is refused by
// name: back references, look-around, \b, \p{...}, flags.
#pragma once

#include <string>
#include <string_view>

namespace bakestone::grammar {

struct RegexOptions {
  bool json = false;  // the text's characters as they are spelled inside a JSON string
  bool search =
      false;  // it may stand anywhere in the text, but for ^ and $; else it is the whole text
};

// Throws kInvalidArgument saying what is refused, and where.
std::string FromRegex(std::string_view pattern, const RegexOptions& options);

}  // namespace bakestone::grammar
