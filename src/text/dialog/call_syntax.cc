// Reads the syntax of tool calls off a rendered conversation. The two calls of the probe differ in
// every name, so that whatever stands between them is the template's.
#include <algorithm>
#include <array>
#include <optional>

#include <nlohmann/json.hpp>

#include "text/dialog/json_scanner.h"
#include "text/dialog/reply_parser.h"
#include "text/dialog/template_traits.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kNames = {"needle_one", "needle_two"};
constexpr std::array kIds = {"callid001", "callid002"};
constexpr const char* kKey = "kkey";
constexpr const char* kValue = "vvalue";
constexpr const char* kOtherKey = "nkey";
constexpr const char* kOtherValue = "57391";

// True where `at` is inside <...> that began before it.
bool InsideMarker(const std::string& text, size_t at, size_t* begin, size_t* end) {
  if (at == 0 || at > text.size()) return false;
  const size_t open = text.rfind('<', at - 1);
  if (open == std::string::npos) return false;
  const size_t close = text.find('>', open);
  if (close == std::string::npos || close < at) return false;
  if (text.substr(open, close - open).find_first_of(" \n") != std::string::npos) return false;
  *begin = open;
  *end = close + 1;
  return true;
}

// Longest common beginning and end that do not cut a marker in two.
size_t CommonPrefix(const std::string& a, const std::string& b) {
  size_t n = std::mismatch(a.begin(), a.begin() + std::min(a.size(), b.size()), b.begin()).first -
             a.begin();
  size_t begin = 0, end = 0;
  if (InsideMarker(a, n, &begin, &end) || InsideMarker(b, n, &begin, &end)) n = begin;
  return n;
}
size_t CommonSuffix(const std::string& a, const std::string& b) {
  size_t n = 0;
  while (n < std::min(a.size(), b.size()) && a[a.size() - 1 - n] == b[b.size() - 1 - n]) ++n;
  size_t begin = 0, end = 0;
  if (InsideMarker(a, a.size() - n, &begin, &end)) {
    n = a.size() - end;
  } else if (InsideMarker(b, b.size() - n, &begin, &end)) {
    n = b.size() - end;
  }
  return n;
}

void ReplaceAll(std::string* text, const std::string& what, const std::string& with) {
  for (size_t at = text->find(what); at != std::string::npos;
       at = text->find(what, at + with.size())) {
    text->replace(at, what.size(), with);
  }
}

// Where a call's parts are in the rendered text.
struct Span {
  size_t begin = 0, end = 0;  // the call, without what surrounds it
  size_t name = 0;
  size_t arguments = 0, arguments_end = 0;
};

struct Found {
  CallSyntax syntax;
  std::vector<Span> calls;
};

// The JSON object that begins at `at`, if one does.
std::optional<Json> ObjectAt(const std::string& text, size_t at, size_t* end) {
  JsonScanner scanner;
  const size_t taken = scanner.Feed(std::string_view(text).substr(at));
  if (!scanner.done()) return std::nullopt;
  *end = at + taken;
  Json json = Json::parse(text.substr(at, taken), nullptr, false);
  return json.is_object() ? std::optional(std::move(json)) : std::nullopt;
}

bool IsArguments(const Json& value) {
  return value.is_object() && value.contains(kKey) && value.contains(kOtherKey);
}

// The object around the name that holds the arguments too.
bool FindObjectCall(const std::string& text, size_t name, const char* needle, CallSyntax* syntax,
                    Span* span) {
  for (size_t from = name + 1; from-- > 0;) {
    const size_t open = text.rfind('{', from);
    if (open == std::string::npos) return false;
    from = open;
    size_t end = 0;
    const auto object = ObjectAt(text, open, &end);
    if (!object || end < name) continue;
    std::string name_key, arguments_key;
    for (const auto& [key, value] : object->items()) {
      if (value == needle) name_key = key;
      if (IsArguments(value)) arguments_key = key;
    }
    if (arguments_key.empty()) continue;
    const bool named = arguments_key == needle;
    if (!named && name_key.empty()) continue;
    syntax->shape = named ? CallShape::kNamedObject : CallShape::kJsonObject;
    syntax->name_key = named ? "" : name_key;
    syntax->arguments_key = named ? "" : arguments_key;
    span->begin = open;
    span->end = end;
    return true;
  }
  return false;
}

bool FindArguments(const std::string& text, size_t from, Span* span) {
  const size_t key = text.find(kKey, from);
  if (key == std::string::npos) return false;
  const size_t open = text.rfind('{', key);
  size_t end = 0;
  if (open == std::string::npos || open < from) return false;
  const auto object = ObjectAt(text, open, &end);
  if (!object || !IsArguments(*object)) return false;
  span->arguments = open;
  span->arguments_end = end;
  return true;
}

// f <key_begin> k <key_end> v <value_end>...
bool FindParameters(const std::string& text, CallSyntax* syntax, Span* span) {
  const size_t name_end = span->name + std::string_view(kNames[0]).size();
  const size_t key = text.find(kKey, name_end), value = text.find(kValue, key);
  const size_t other = text.find(kOtherKey, value), number = text.find(kOtherValue, other);
  if (number == std::string::npos) return false;
  const auto between = [&](size_t begin, size_t length, size_t end) {
    return text.substr(begin + length, end - begin - length);
  };
  const std::string before = text.substr(name_end, key - name_end);
  const std::string middle = between(value, std::string_view(kValue).size(), other);
  const std::string first = between(key, std::string_view(kKey).size(), value);
  const std::string second = between(other, std::string_view(kOtherKey).size(), number);
  const std::string rest = text.substr(number + std::string_view(kOtherValue).size());
  if (first.size() > 80 || middle.size() > 120 || before.size() > 200) return false;
  span->arguments = name_end;
  if (before.ends_with("(") && first.starts_with('=')) {
    syntax->shape = CallShape::kPython;
    const size_t close = text.find(')', number);
    if (close == std::string::npos) return false;
    span->end = span->arguments_end = close + 1;
    return true;
  }
  if (before == "{" && first.starts_with(':')) {
    syntax->shape = CallShape::kBraces;
    syntax->quote = first.substr(1);
    const size_t close = text.find('}', number);
    if (close == std::string::npos) return false;
    span->end = span->arguments_end = close + 1;
    return true;
  }
  syntax->shape = CallShape::kNameThenParameters;
  const size_t shared = CommonSuffix(before, middle);
  syntax->key_begin = before.substr(before.size() - shared);
  syntax->after_name = before.substr(0, before.size() - shared);
  syntax->value_end = middle.substr(0, middle.size() - shared);
  if (syntax->key_begin.empty() || syntax->value_end.empty()) return false;
  if (first == second) {
    syntax->key_end = first;
  } else {  // an attribute that depends on the value's type
    size_t front = 0, back = 0;
    while (front < std::min(first.size(), second.size()) && first[front] == second[front]) ++front;
    while (back < std::min(first.size(), second.size()) - front &&
           first[first.size() - 1 - back] == second[second.size() - 1 - back]) {
      ++back;
    }
    syntax->key_end = first.substr(0, front) + "\x01" + first.substr(first.size() - back);
  }
  const size_t tail =
      std::mismatch(rest.begin(), rest.begin() + std::min(rest.size(), syntax->value_end.size()),
                    syntax->value_end.begin())
          .first -
      rest.begin();
  span->end = span->arguments_end = number + std::string_view(kOtherValue).size() + tail;
  return true;
}

bool FindCall(const std::string& text, size_t from, int index, CallSyntax* syntax, Span* span) {
  span->name = text.find(kNames[index], from);
  if (span->name == std::string::npos) return false;
  if (FindObjectCall(text, span->name, kNames[index], syntax, span)) {
    return FindArguments(text, span->begin + 1, span);
  }
  span->begin = span->name;
  if (FindArguments(text, span->name, span)) {
    syntax->shape = CallShape::kNameThenJson;
    span->end = span->arguments_end;
    return true;
  }
  return index == 0 && FindParameters(text, syntax, span);
}

// The second call of a shape that has no JSON ends as long after its value as the first.
bool FindSecondCall(const std::string& text, const Span& first, CallSyntax* syntax, Span* span) {
  CallSyntax same;
  if (FindCall(text, first.end, 1, &same, span)) return same.shape == syntax->shape;
  const size_t value = text.find(kOtherValue, first.arguments);
  const size_t tail = first.end - value;
  span->name = text.find(kNames[1], first.end);
  const size_t other =
      text.find(kOtherValue, span->name == std::string::npos ? text.size() : span->name);
  if (other == std::string::npos) return false;
  span->begin = span->arguments = span->name;
  span->end = span->arguments_end = std::min(other + tail, text.size());
  return true;
}

void SetInner(const std::string& text, const Span& call, int index, CallSyntax* syntax) {
  const auto part = [&](size_t begin, size_t end) {
    std::string piece = begin < end ? text.substr(begin, end - begin) : "";
    ReplaceAll(&piece, kIds[index], "\x01");
    return piece;
  };
  const size_t name_end = call.name + std::string_view(kNames[index]).size();
  if (call.arguments < call.name) {  // the object's keys the other way round
    syntax->before_name = "{\"" + syntax->name_key + "\": \"";
    syntax->after_name = "\", \"" + syntax->arguments_key + "\": ";
    syntax->after_arguments = "}";
    return;
  }
  if (syntax->shape == CallShape::kJsonObject || syntax->shape == CallShape::kNamedObject) {
    syntax->before_name = part(call.begin, call.name);
    syntax->after_arguments = part(call.arguments_end, call.end);
  }
  if (syntax->shape == CallShape::kJsonObject || syntax->shape == CallShape::kNamedObject ||
      syntax->shape == CallShape::kNameThenJson) {
    syntax->after_name = part(name_end, call.arguments);
  }
}

// Digits that differ between the calls are the call's index.
void MarkIndex(std::string* text, const std::string& other) {
  if (text->size() != other.size()) return;
  for (size_t i = 0; i < text->size(); ++i) {
    if ((*text)[i] == other[i]) continue;
    const bool counts = other[i] == (*text)[i] + 1 && (*text)[i] >= '0' && (*text)[i] <= '8';
    if (counts) (*text)[i] = '\x02';
  }
}

// front, the calls, `between` them, and after: what opens and closes each, and all of them.
void SetSurroundings(std::string front, std::string between, const std::string& after,
                     CallSyntax* syntax) {
  ReplaceAll(&front, kIds[0], "\x01");
  ReplaceAll(&between, kIds[1], "\x01");
  const size_t shared = CommonSuffix(front, between);
  syntax->call_begin = front.substr(front.size() - shared);
  syntax->section_begin = front.substr(0, front.size() - shared);
  const std::string rest = between.substr(0, between.size() - shared);
  const size_t ending = CommonPrefix(rest, after);
  syntax->call_end = rest.substr(0, ending);
  syntax->separator = rest.substr(ending);
  syntax->section_end = after.substr(ending);
}

bool ReadsBack(const CallSyntax& syntax, const std::string& reply, int calls) {
  ReplyFormat format;
  format.calls = syntax;
  ReplyParserOptions options{.reads_calls = true};
  for (const char* name : kNames) {
    options.tools[name] = {{"properties", {{kKey, {{"type", "string"}}}}}};
  }
  const auto parser = MakeReplyParser(format, std::move(options));
  std::array<std::string, 2> arguments;
  int found = 0;
  for (ReplyDelta delta : {parser->Append(reply), parser->Finish()}) {
    for (const CallDelta& call : delta.calls) {
      if (call.begins && (found >= calls || call.name != kNames[found++])) return false;
      arguments[found - 1] += call.arguments;
    }
  }
  for (int i = 0; i < found; ++i) {
    const Json json = ParseBounded(arguments[i]);
    if (!IsArguments(json) || json[kKey] != kValue) return false;
  }
  return found == calls;
}

}  // namespace

Json ProbeCalls(int calls, bool object_arguments) {
  Json list = Json::array();
  for (int i = 0; i < calls; ++i) {
    Json arguments = {{kKey, kValue}, {kOtherKey, std::stoi(kOtherValue)}};
    if (!object_arguments) arguments = arguments.dump();
    list.push_back({{"id", kIds[i]},
                    {"type", "function"},
                    {"function", {{"name", kNames[i]}, {"arguments", arguments}}}});
  }
  return list;
}

CallSyntax LearnCallSyntax(const std::string& rendered, const std::vector<std::string>& others,
                           const ReasoningSyntax& reasoning) {
  CallSyntax syntax;
  Span first, second;
  // What this conversation begins and ends with as the others do is the turn's, not the calls'.
  size_t head = 0, tail = 0;
  for (const std::string& other : others) head = std::max(head, CommonPrefix(rendered, other));
  if (!others.empty()) {
    tail = CommonSuffix(rendered.substr(head), others[0].substr(std::min(head, others[0].size())));
  }
  if (!FindCall(rendered, head, 0, &syntax, &first)) return {};
  head = std::min(head, first.begin);
  const size_t thought =
      reasoning.present() ? rendered.find(reasoning.end, head) : std::string::npos;
  if (thought < first.begin) head = thought + reasoning.end.size();
  SetInner(rendered, first, 0, &syntax);
  const size_t end = std::max(rendered.size() - tail, first.end);
  const bool two = FindSecondCall(rendered, first, &syntax, &second) && second.begin >= first.end &&
                   second.end <= end;
  if (!two) {
    syntax.call_begin = rendered.substr(head, first.begin - head);
    syntax.call_end = rendered.substr(first.end, end - first.end);
  } else {
    SetSurroundings(rendered.substr(head, first.begin - head),
                    rendered.substr(first.end, second.begin - first.end),
                    rendered.substr(second.end, end - second.end), &syntax);
    CallSyntax other = syntax;
    SetInner(rendered, second, 1, &other);
    MarkIndex(&syntax.before_name, other.before_name);
    MarkIndex(&syntax.after_name, other.after_name);
    MarkIndex(&syntax.after_arguments, other.after_arguments);
  }
  return ReadsBack(syntax, rendered.substr(head), two ? 2 : 1) ? syntax : CallSyntax{};
}

}  // namespace bakestone::dialog
