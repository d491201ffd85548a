// Replies that call functions as a grammar: what the model writes around a call is the model's own
// syntax (text/dialog/written_calls.h), the name is one of the functions', and the arguments
// satisfy its schema (grammar/json_schema.h).
//
// Markers of a syntax may be control tokens, which no grammar's text can mean: in the grammar each
// is spelled by kMarkerByte and two digits, which nothing else can be, and the mask of such a
// grammar takes the token for that spelling. So they are legal where the syntax has them and
// nowhere else.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "grammar/grammar.h"
#include "text/dialog/reply_format.h"
#include "text/dialog/written_calls.h"

namespace bakestone {

struct CallableFunction {
  std::string name;
  std::string place;  // of its schema in the request: begins what a refusal of it says
  nlohmann::ordered_json parameters;  // JSON Schema of an object; null: any object
  bool strict = true;                 // false: its arguments only have to be well-formed
};

struct HeldReply {
  dialog::WrittenCalls calls;  // that can be written
  dialog::ReasoningSyntax reasoning = {};
  std::vector<CallableFunction> functions;  // at least one
  bool required = true;    // else free text, from a call's marker on calls, and after them nothing
  std::string begun = {};  // where required: what the reply has of CallOpening already
  bool in_reasoning = false;  // where not: the reply begins inside of reasoning
};

// markers: the control tokens of the reply's format. Tokens that end an answer also end what is
// written of a call.
GrammarSource SourceOf(const HeldReply& reply, const Tokenizer& tokenizer,
                       std::span<const int32_t> markers);

namespace grammar {

inline constexpr char kMarkerByte = '\x04';
std::string MarkerSpelling(size_t index);

// Of a source's text: its markers in the order of their spellings, and the grammar. Throws
// kInvalidArgument as FromJsonSchema, behind the place of the function's schema.
std::vector<int32_t> MarkersOfCalls(const std::string& text);
std::string FromCalls(const std::string& text);

}  // namespace grammar
}  // namespace bakestone
