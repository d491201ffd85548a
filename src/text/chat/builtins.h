// The tables of filters, tests, functions and methods, and how a builtin reads its arguments.
// Everything here is a pure function of its arguments and the Runtime.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat/objects.h"

namespace bakestone::chat {

using Builtin = Value (*)(Runtime& runtime, const Value& self, const CallArgs& args);
struct NamedBuiltin {
  std::string_view name;
  Builtin call;
};

// A global function, as a value.
struct Function final : Object {
  const NamedBuiltin* builtin = nullptr;
  std::string_view type_name() const override { return "function"; }
  bool callable() const override { return true; }
};

const NamedBuiltin* FindFilter(std::string_view name);
const NamedBuiltin* FindTest(std::string_view name);  // returns a bool Value; self is the subject
const NamedBuiltin* FindFunction(std::string_view name);
std::span<const NamedBuiltin> Functions();

// True if any type of value has a method (or a callable attribute) of this name.
bool IsKnownMethod(std::string_view name);
bool HasMethod(const Value& self, std::string_view name);
bool IsMutatingMethod(const Value& self, std::string_view name);  // the sandbox refuses these
Value CallMethod(Runtime& runtime, const Value& self, std::string_view name, const CallArgs& args);
std::optional<Value> LoopAttribute(const Loop& loop, std::string_view name);
std::optional<Value> MacroAttribute(const Value& value, std::string_view name);

// Arguments by position or keyword, with Python's errors for too many, unknown and missing ones.
class Params {
 public:
  Params(std::string_view function, const CallArgs& args,
         std::initializer_list<std::string_view> names, std::size_t required = 0);
  bool Has(std::size_t i) const { return values_[i] != nullptr; }
  bool HasValue(std::size_t i) const { return Has(i) && !values_[i]->is_none(); }
  const Value& operator[](std::size_t i) const { return *values_[i]; }
  Value Get(std::size_t i, Value fallback) const { return Has(i) ? *values_[i] : fallback; }
  bool Flag(std::size_t i, bool fallback) const { return Has(i) ? Truthy(*values_[i]) : fallback; }
  Int Integer(std::size_t i, Int fallback) const;
  const Text& String(std::size_t i) const;  // must be a string

 private:
  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

// Pieces that several tables share.
Text StripText(const Text& text, const Value* chars, bool left, bool right);
Text ReplaceText(Runtime& runtime, const Text& text, const Text& from, const Text& to, Int count);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);
std::vector<Text> SplitText(const Text& text, const Value* separator, Int limit, bool from_right);
enum class CaseMap { kUpper, kLower, kTitle, kCapitalize, kSwap, kFold };
Text MapCase(const Text& text, CaseMap map);
Text PercentFormat(Runtime& runtime, const Text& format, const Value& args);
Text BraceFormat(Runtime& runtime, const Text& format, const CallArgs& args);
Text FormatWithSpec(Runtime& runtime, const Value& value, std::string_view spec);
std::string Strftime(std::chrono::local_seconds time, std::string_view format);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<Text> indent;  // none: one line
  Text item_separator;
  Text key_separator;
};
void AppendJson(Runtime& runtime, Text& out, const Value& value, const JsonStyle& style, int level);
// item.a.0.b as filters spell it ("a.0.b", an index, or none for the item itself); `fallback`, if
// any, replaces what is undefined.
Value AttributePath(Runtime& runtime, const Value& item, const Value& path,
                    const Value* fallback = nullptr);
Value ParseJson(Runtime& runtime, const Text& text);

}  // namespace bakestone::chat
