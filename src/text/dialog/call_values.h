// Arguments of tool calls that are not written as JSON, brought to JSON. All input is a model's
// text: what cannot be read is an empty optional, never an exception, and nesting is bounded.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace bakestone::dialog {

// What names of functions and parameters consist of.
inline bool IsNameChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-' || c == '.';
}

// Whether `type` or `enum` of an object says that the values are strings.
bool IsStringOnly(const nlohmann::ordered_json& schema);

// One parameter's text between tags. schema: the parameter's JSON Schema, or null. A string where
// the schema says so or where the text is no JSON value; Python's True, False and None count as
// JSON's.
nlohmann::ordered_json ParameterValue(const std::string& text,
                                      const nlohmann::ordered_json* schema);

struct ReadCall {
  std::string name;
  std::string arguments;  // a JSON object
  size_t end = 0;         // bytes of the text that were read
};

// name(key='value', other=[1, None]); a trailing ".call" of the name is dropped. *cut: nothing is
// wrong with what is there, but it is not all.
std::optional<ReadCall> ReadPythonCall(std::string_view text, bool* cut = nullptr);

// {key:<quote>text<quote>,other:[1,{inner:true}]}: names without quotes, strings between `quote`.
// Sets `end` and `arguments`.
std::optional<ReadCall> ReadBraces(std::string_view text, std::string_view quote,
                                   bool* cut = nullptr);

}  // namespace bakestone::dialog
