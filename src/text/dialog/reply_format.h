// How a family of models writes its reply: what surrounds its reasoning, and the syntax of its tool
// calls. Plain data, learned from the chat template (template_traits.h) and read by ReplyParser.
#pragma once

#include <string>
#include <vector>

namespace bakestone::dialog {

// Text between begin and end is reasoning. Markers carry no white space at their ends.
struct ReasoningSyntax {
  std::string begin = {},
              end = {};  // "<think>", "</think>"; empty: the model does not reason aloud
  bool present() const { return !end.empty(); }
};

// A call may stand without any marker where call_begin and section_begin are empty: then only at
// the beginning of the reply's text.
enum class CallShape {
  kNone,                // no tools, or a way to call them that cannot be read
  kJsonObject,          // begin {"name": "f", "arguments": {...}} end, alone or in an array
  kNamedObject,         // begin {"f": {...}} end, alone or in an array
  kNameThenJson,        // begin f name_end {...} end
  kNameThenParameters,  // begin f name_end (key_begin k key_end v value_end)* end
  kBraces,              // begin f {k:v,k:v} end, with a quote of its own around strings
  kPython,              // [f(k='v', k=5), g()]
  kHarmony,             // messages in channels; a call is a message to functions.f
};

// The texts are as the template writes them, white space included; the parser matches them without
// white space at their ends. A marker in which the template put something that differs from call to
// call (an id, an index) is kept in pieces.
struct CallSyntax {
  CallShape shape = CallShape::kNone;
  std::string section_begin = {}, section_end = {};  // around all calls; may be empty
  std::string call_begin = {}, call_end = {}, separator = {};
  std::string alternate_begin = {};  // another marker that a call may open with: "<|python_tag|>"
  std::string name_key = "name", arguments_key = "arguments";
  // From the end of call_begin to the name, from the name to the arguments, from the arguments to
  // call_end. Only "\x01" stands for an id, "\x02" for the call's index.
  std::string before_name = {}, after_name = {}, after_arguments = {};
  std::string key_begin = {}, key_end = {},
              value_end = {};  // kNameThenParameters; key_end may hold "\x01"
  std::string quote = {};      // kBraces
  bool from_template =
      true;  // false: the template knows no tools, and the prompt has to explain this syntax
};

// A call as the syntax has it, to show to a model. arguments: JSON. Only for the shapes whose
// arguments are JSON.
std::string WriteCall(const CallSyntax& syntax, const std::string& name,
                      const std::string& arguments);

struct ReplyFormat {
  ReasoningSyntax reasoning = {};
  CallSyntax calls = {};
};

}  // namespace bakestone::dialog
