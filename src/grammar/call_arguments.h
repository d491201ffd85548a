// The arguments of a call as rules of a grammar: a JSON object of the function's schema, or its
// members one by one in a syntax of their own. Internal to grammar/. Throws kInvalidArgument naming
// keyword and place as FromJsonSchema.
#pragma once

#include <string>

#include "grammar/schema_merge.h"

namespace bakestone::grammar {

// As dialog::WrittenCalls has it; text_end: what cannot be inside a text that is written as it is.
struct ArgumentSyntax {
  std::string key_begin, key_end, value_end, comma, quote, text_end;
  bool plain_strings = false;
};

struct ArgumentRules {
  std::string start;  // an expression
  std::string rules;  // that it needs beside JsonValueRules() and, for NamedArguments, a rule
                      // "text" of plain text
};

// A function's parameters as a schema of objects and of nothing else. null: any object.
Json ObjectSchema(const Json& parameters);

// strict: else the arguments are only well-formed. prefix: begins the names of rules.
ArgumentRules JsonArguments(const Json& schema, bool strict, const std::string& prefix);

// Members in the order of `properties`, then those that are only required; no others. Beside these
// keywords and `additionalProperties` the schema itself may have none; its properties may have
// those of FromJsonSchema, but one that is written as plain text only enum, const, a length or a
// format.
ArgumentRules NamedArguments(const Json& schema, bool strict, const ArgumentSyntax& syntax,
                             const std::string& prefix);

// A piece of a syntax: "\x01" is an id, "\x02" an index.
std::string SyntaxPiece(const std::string& text);

// The body of a rule: any text without `end` and without markers.
std::string PlainTextWithout(const std::string& end);

}  // namespace bakestone::grammar
