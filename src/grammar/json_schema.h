// JSON Schema as a grammar of the JSON texts that it allows. A list of what is allowed, not of what
// is not: each keyword is either turned into rules, known to say nothing about values, or refused
// by name and place, so that a schema that is taken is honoured in all that it says. docs/server.md
// has the table.
//
// Texts are spelled in one way: members in the order of `properties`, then others; numbers without
// a needless fraction; at most one space, or a line break and its indent, between tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace bakestone::grammar {

// The grammar in EBNF; its first rule is root. Throws kInvalidArgument naming keyword and JSON
// pointer ("#/properties/a").
std::string FromJsonSchema(const nlohmann::ordered_json& schema);

// Of parts of a schema (JSON pointers, "#" is the whole): the rules that stand for them, and all
// rules that these need beside JsonValueRules(). prefix: begins the names of the rules, so that
// several schemas fit into one grammar.
struct SchemaRules {
  std::vector<std::string> starts;
  std::string rules;
};
SchemaRules RulesOfSchema(const nlohmann::ordered_json& schema,
                          const std::vector<std::string>& pointers, const std::string& prefix);

// Any JSON object.
std::string AnyJsonObject();

// A grammar of texts that match the regular expression as a whole. Throws as FromRegex.
std::string WholeRegex(std::string_view pattern);

// One of the texts.
std::string AnyOfTexts(const std::vector<std::string>& texts);

}  // namespace bakestone::grammar
