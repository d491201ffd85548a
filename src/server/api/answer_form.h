// What an answer has to be, as the families' requests say it: a JSON object, JSON of a schema, a
// text that matches a regular expression or a grammar, one of some texts. docs/server.md says what
// schemas may have.
#pragma once

#include <optional>
#include <string>

#include "grammar/grammar.h"
#include "server/api/fields.h"

namespace bakestone::api {

struct AnswerForm {
  GrammarSource source;
  std::string field;  // of the request, for errors: "response_format"
};

// {"type": "text" | "json_object" | "json_schema"...}. wrapped: the schema lies in an object
// "json_schema", as OpenAI's chat has it; else beside the type. nullopt: text. Throws ApiError 400
// naming the field.
std::optional<AnswerForm> ReadFormat(const Json& format, const std::string& field, bool wrapped);

// response_format, and vLLM's structured_outputs, guided_json, guided_regex, guided_choice,
// guided_grammar; at most one.
std::optional<AnswerForm> ReadResponseFormat(Fields& fields);

AnswerForm SchemaForm(const Json& schema, const std::string& field);

}  // namespace bakestone::api
