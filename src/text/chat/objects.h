// Values that are more than data: namespaces, iterators, dict views, macros, bound methods, loop,
// and the runtime that builtins (filters, tests, functions, methods) are called with.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat/template.h"
#include "text/chat/value.h"

namespace bakestone::chat {

// The depth of something that holds `items`; fails where values nest too deeply.
int DepthAbove(std::span<const Value> items);
Value MakeList(std::vector<Value> items, bool tuple = false);
Value MakeDict(std::vector<Dict::Item> items);
inline Value MakeTuple(std::vector<Value> items) { return MakeList(std::move(items), true); }

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

struct Namespace final : Object {
  std::vector<std::pair<std::string, Value>> attributes;
  std::string_view type_name() const override { return "Namespace"; }
  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value);
};

// What a Python generator is here: items made beforehand, handed out once.
struct Generator final : Object {
  std::vector<Value> items;
  std::size_t next = 0;
  std::string_view type_name() const override { return "generator"; }
};

struct DictView final : Object {
  enum class Part { kKeys, kValues, kItems };
  Value::DictRef dict;
  Part part = Part::kItems;
  std::string_view type_name() const override;
};

struct Range final : Object {
  Int start = 0, stop = 0, step = 1;
  std::string_view type_name() const override { return "range"; }
  std::size_t size() const;
};

// A method of a value, not called yet.
struct BoundMethod final : Object {
  Value self;
  std::string name;
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  bool callable() const override { return true; }
};

struct Cycler final : Object {
  std::vector<Value> items;
  std::size_t pos = 0;
  std::string_view type_name() const override { return "Cycler"; }
};

struct Joiner final : Object {
  Value separator;
  bool used = false;
  std::string_view type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
};

struct Loop final : Object {
  std::vector<Value> items;
  std::size_t index0 = 0;
  int depth0 = 0;
  std::optional<std::vector<Value>> last_changed;
  // For a recursive loop: renders the loop again over its argument.
  std::function<Value(const Value&)> recurse;
  std::string_view type_name() const override { return "LoopContext"; }
  bool callable() const override { return recurse != nullptr; }
};

// The work and the memory that one render may use.
class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}
  const Limits& limits() const { return limits_; }
  void Step(std::int64_t steps = 1) {
    if ((steps_ += steps) > limits_.max_steps) FailSteps();
  }
  void Work(std::size_t bytes) { Step(1 + static_cast<std::int64_t>(bytes / 64)); }
  void String(std::size_t bytes);  // a string of this size is about to exist
  void Items(std::size_t items);   // so is a container

 private:
  [[noreturn]] void FailSteps() const;
  Limits limits_;
  std::int64_t steps_ = 0;
  std::int64_t bytes_ = 0;
};

// What a builtin may use besides its arguments. Owned by the interpreter, one for each render.
class Runtime {
 public:
  Runtime(const Limits& limits, std::chrono::local_seconds time) : budget(limits), now(time) {}
  virtual ~Runtime() = default;
  virtual Value Call(const Value& callee, CallArgs args) = 0;
  virtual std::shared_ptr<Namespace> NewNamespace() = 0;

  Value MakeString(Text text);
  Value MakeString(std::string bytes) { return MakeString(Text::Trusted(std::move(bytes))); }
  Value NewList(std::vector<Value> items, bool tuple = false);
  Value NewDict(std::vector<Dict::Item> items);
  Value NewGenerator(std::vector<Value> items);
  // All the items, as Python's iteration gives them (characters, keys, ...); consumes a generator.
  std::vector<Value> Iterate(const Value& value);
  Text ToText(const Value& value);  // str(value), within the budget

  Budget budget;
  const std::chrono::local_seconds now;
};

std::optional<std::size_t> ObjectSize(const Value& value);  // len(), where the object has one
bool ObjectsEqual(const Value& a, const Value& b);
std::optional<std::size_t> Length(const Value& value);  // len(value); none if it has no length
bool Iterable(const Value& value);
bool IsCallable(const Value& value);
Value DictViewItem(const DictView& view, std::size_t index);

// Attribute and item access as jinja2's sandbox does it: value.name, value[key], slices.
Value GetAttribute(Runtime& runtime, const Value& value, const Value& name);
Value GetItem(Runtime& runtime, const Value& value, const Value& key);
Value GetSlice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
               const Value& step);
bool Contains(Runtime& runtime, const Value& container, const Value& item);
// op is one of + - * / // % **
Value Arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b);
Value Negate(const Value& value);
Text EscapeHtml(const Text& text);

}  // namespace bakestone::chat
