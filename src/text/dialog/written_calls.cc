#include "text/dialog/written_calls.h"

#include <algorithm>

namespace bakestone::dialog {
namespace {

constexpr std::string_view kBlank = " \n\t\r";

WrittenCalls WriteHarmony() {
  WrittenCalls calls{.arguments = WrittenCalls::Arguments::kJson};
  calls.begin = "<|channel|>commentary to=functions.";
  calls.after_name = " <|constrain|>json<|message|>";
  calls.other_after_name = {"<|channel|>commentary <|constrain|>json<|message|>",
                            "<|channel|>commentary json<|message|>"};
  calls.openings = {{.marker = "to=functions.", .rest = ""}};
  return calls;
}

void AddOpenings(const CallSyntax& syntax, WrittenCalls* calls) {
  const auto add = [&](const std::string& part, const std::string& rest, bool all) {
    const std::string trigger = OpeningMarkersOf(syntax, part).trigger;
    if (trigger.empty()) return;
    const bool known = std::any_of(calls->openings.begin(), calls->openings.end(),
                                   [&](const auto& opening) { return opening.marker == trigger; });
    if (!known) {
      calls->openings.push_back(
          {trigger, (part + rest).substr(part.find(trigger) + trigger.size()), all});
    }
  };
  add(syntax.section_begin, calls->begin, true);
  add(syntax.call_begin, syntax.before_name, calls->first.empty());
  calls->bare = calls->openings.empty();
  if (!syntax.alternate_begin.empty()) {
    calls->openings.push_back({syntax.alternate_begin, syntax.before_name, false});
  }
}

}  // namespace

std::vector<std::string> Lexemes(const std::string& text) {
  std::vector<std::string> lexemes;
  for (size_t at = 0; at < text.size();) {
    if (kBlank.find(text[at]) != std::string_view::npos) {
      ++at;
      continue;
    }
    size_t end = text.size();
    if (text[at] == '<') {
      const size_t close = text.find('>', at), open = text.find('<', at + 1);
      end = close != std::string::npos &&
                    (open == std::string::npos || close < open || text[at + 1] == '|')
                ? close + 1
                : std::min(open, text.size());
    } else if (text[at] == '[') {
      const size_t close = text.find(']', at);
      end = close == std::string::npos || close == at + 1 ? at + 1 : close + 1;
    } else {
      end = std::min(text.find_first_of("<[ \n", at + 1), text.size());
    }
    lexemes.push_back(text.substr(at, end - at));
    at = end;
  }
  return lexemes;
}

OpeningMarkers OpeningMarkersOf(const CallSyntax& syntax, const std::string& part) {
  // A bare word between a marker and a name could be part of a name.
  const bool words =
      syntax.shape == CallShape::kJsonObject || syntax.shape == CallShape::kNamedObject;
  OpeningMarkers markers;
  bool first = true;
  for (const std::string& lexeme : Lexemes(part.substr(0, part.find('\x01')))) {
    const bool marker =
        lexeme.size() > 1 && (first || words || lexeme[0] == '<' || lexeme[0] == '[');
    if (first && marker) markers.trigger = lexeme;
    if (marker) markers.all.push_back(lexeme);
    first = false;
  }
  return markers;
}

WrittenCalls WriteCalls(const CallSyntax& syntax, bool parallel) {
  if (syntax.shape == CallShape::kNone) return {};
  if (syntax.shape == CallShape::kHarmony) return WriteHarmony();
  WrittenCalls calls;
  calls.first = syntax.section_begin;
  calls.between = syntax.separator;
  calls.last = syntax.section_end;
  calls.begin = syntax.call_begin + syntax.before_name;
  calls.after_name = syntax.after_name;
  calls.end = syntax.after_arguments + syntax.call_end;
  calls.several = parallel;
  calls.arguments = WrittenCalls::Arguments::kNamed;
  switch (syntax.shape) {
    case CallShape::kNameThenParameters:
      calls.key_begin = syntax.key_begin;
      calls.key_end = syntax.key_end;
      calls.value_end = syntax.value_end;
      calls.plain_strings = true;
      break;
    case CallShape::kBraces:
      calls.after_name = "{";
      calls.end = "}" + syntax.call_end;
      calls.key_end = ":";
      calls.comma = ",";
      calls.plain_strings = !syntax.quote.empty();
      calls.quote = syntax.quote;
      break;
    case CallShape::kPython:
      calls.after_name = "(";
      calls.end = ")" + syntax.call_end;
      calls.key_end = "=";
      calls.comma = ", ";
      break;
    default:
      calls.arguments = WrittenCalls::Arguments::kJson;
  }
  AddOpenings(syntax, &calls);
  return calls;
}

std::string CallOpening(const WrittenCalls& calls, const std::string& name) {
  std::string text = calls.first + calls.begin;
  if (!name.empty()) text += name + calls.after_name;
  for (char& c : text) c = c == '\x01' || c == '\x02' ? '0' : c;
  text.resize(text.find_last_not_of(kBlank) + 1);
  return text;
}

}  // namespace bakestone::dialog
