// Parses a template. What a template may use is checked here: a filter, test, function, method or
// statement that is not known is an Error(kUnsupported) naming line and token.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "text/chat/ast.h"

namespace bakestone::chat {

struct ParsedTemplate {
  Body body;
  std::vector<std::string> names;   // by NameId
  std::set<std::string> variables;  // names that are read and never set
  bool branches_on_content = false;
};

// Messages start with "line N: ".
ParsedTemplate ParseTemplate(std::string_view source);

// Names with a meaning of their own; the parser gives them these ids in every template.
inline constexpr NameId kLoopName = 0;
inline constexpr NameId kCallerName = 1;
inline constexpr NameId kVarargsName = 2;
inline constexpr NameId kKwargsName = 3;

}  // namespace bakestone::chat
