// Cuts a template into tokens, with jinja2's rules for white space around tags (trim_blocks,
// lstrip_blocks, the signs - and +), raw blocks and comments.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat/value.h"

namespace bakestone::chat {

struct Token {
  enum class Kind {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;  // data, name, the string's value, or the operator
  Value number;
  int line = 1;

  bool Is(std::string_view op) const { return kind == Kind::kOperator && text == op; }
  bool IsName(std::string_view name) const { return kind == Kind::kName && text == name; }
  std::string Describe() const;
};

// Throws Error for text that is not UTF-8, an unclosed tag or string, a character no token has.
// Messages start with "line N: ".
std::vector<Token> Tokenize(std::string_view source);

}  // namespace bakestone::chat
