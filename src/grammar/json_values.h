// Parts of grammars of JSON texts that json_schema.cc puts together. Internal to grammar/.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "grammar/number_range.h"
#include "grammar/schema_merge.h"

namespace bakestone::grammar {

// Rules of JSON itself: value, object, array, string, character, number, integer, and ws, what may
// stand between tokens.
const char* JsonValueRules();

// The texts of one value, its members in their order.
std::string ValueLiteral(const Json& value);

// null: the format is not known.
const char* FormatPattern(const std::string& format);

// The rest of a JSON string behind its first quote, quote at the end included, that is none of
// these texts. Texts are in their canonical spelling. new_rule makes a rule of a body and returns
// its name.
std::string TextOtherThan(const std::vector<std::string>& texts,
                          const std::function<std::string(const std::string& body)>& new_rule);

// What a schema says about numbers.
struct NumberBounds {
  NumberRange range;
  std::optional<std::string> multiple_of;  // in decimals
  std::string rules = {};                  // that the expression needs beside itself
};
NumberBounds ReadBounds(const Json& schema, const std::string& place);
// Empty text: there is no such number. rule_prefix: begins the names of bounds->rules.
std::string IntegerExpression(NumberBounds& bounds, const std::string& rule_prefix,
                              const std::string& place);
std::string NumberExpression(const NumberBounds& bounds, const std::string& place);

}  // namespace bakestone::grammar
