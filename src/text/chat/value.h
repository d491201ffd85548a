// The values of a template: what Python would have under Hugging Face's sandbox. All of them are
// immutable (the sandbox refuses list.append and the like) but for namespaces, generators and the
// other Objects. Copies are cheap: they share.
//
// A Value belongs to one render and so to one thread; only string constants of a parsed template
// are shared between threads, and those are never written.
#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/chat/text.h"

namespace bakestone::chat {

// Python's int has no end; ours has 128 bits (JSON's unsigned 64-bit numbers fit) and overflow is
// an error.
__extension__ typedef __int128 Int;

class Value;
class Dict;

// What is not list, dict or scalar: a namespace, macro, method, iterator, loop... See objects.h.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;  // as Python's type(x).__name__
  virtual bool callable() const { return false; }
  // Of what it holds, as List::depth. Namespaces and macros are 0: the interpreter takes them
  // apart.
  int depth = 0;
};

// A list or a tuple. `depth` bounds the nesting, so that no walk over a value can overflow.
struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
};

class Value {
 public:
  struct Undefined {
    std::shared_ptr<const std::string> message;  // "'x' is undefined"
  };
  struct None {};
  using Str = std::shared_ptr<const Text>;
  using ListRef = std::shared_ptr<const List>;
  using DictRef = std::shared_ptr<const Dict>;
  using ObjectRef = std::shared_ptr<Object>;
  enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kDict, kObject };

  Value() : data_(None{}) {}
  static Value MakeUndefined(std::string message);
  explicit Value(bool value) : data_(value) {}
  explicit Value(Int value) : data_(value) {}
  explicit Value(std::int64_t value) : data_(Int{value}) {}
  explicit Value(int value) : data_(Int{value}) {}
  explicit Value(std::size_t value) : data_(static_cast<Int>(value)) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(ListRef list) : data_(std::move(list)) {}
  explicit Value(DictRef dict) : data_(std::move(dict)) {}
  explicit Value(ObjectRef object) : data_(std::move(object)) {}
  explicit Value(const char*) = delete;  // would become a bool

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_int() const { return kind() == Kind::kInt; }  // not bool
  bool is_integral() const { return is_int() || is_bool(); }
  bool is_float() const { return kind() == Kind::kFloat; }
  bool is_number() const { return is_integral() || is_float(); }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_list() const { return kind() == Kind::kList; }  // list or tuple
  bool is_tuple() const { return is_list() && list().tuple; }
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_object() const { return kind() == Kind::kObject; }

  bool as_bool() const { return std::get<bool>(data_); }
  Int as_int() const { return is_bool() ? Int{as_bool()} : std::get<Int>(data_); }
  double as_double() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(as_int());
  }
  const Text& text() const { return *std::get<Str>(data_); }
  const std::string& str() const { return text().bytes(); }
  const List& list() const { return *std::get<ListRef>(data_); }
  const Dict& dict() const { return *std::get<DictRef>(data_); }
  const DictRef& dict_ref() const { return std::get<DictRef>(data_); }
  const ObjectRef& object() const { return std::get<ObjectRef>(data_); }
  const std::string& undefined_message() const { return *std::get<Undefined>(data_).message; }
  // The object as a T, or null.
  template <class T>
  T* As() const {
    return is_object() ? dynamic_cast<T*>(object().get()) : nullptr;
  }

  int depth() const;                   // 0 for a scalar
  std::string_view type_name() const;  // "str", "dict", ...

 private:
  explicit Value(Undefined undefined) : data_(std::move(undefined)) {}
  std::variant<Undefined, None, bool, Int, double, Str, ListRef, DictRef, ObjectRef> data_;
};

// An ordered map with Python's equality of keys (1 == 1.0 == True). Built once, then only read.
class Dict {
 public:
  using Item = std::pair<Value, Value>;
  // A later duplicate of a key replaces the value at the first one's place.
  explicit Dict(std::vector<Item> items);
  const std::vector<Item>& items() const { return items_; }
  std::size_t size() const { return items_.size(); }
  int depth() const { return depth_; }
  const Value* Find(const Value& key) const;  // null if absent; the key must be hashable
  const Value* Find(std::string_view key) const;

 private:
  std::vector<Item> items_;
  std::vector<std::uint32_t> sorted_;  // indices of items_ in the order of keys
  int depth_ = 1;
};

// Failures of an operation; the interpreter adds the line. Thrown by everything in this folder.
[[noreturn]] void Fail(std::string message);
template <class... Args>
[[noreturn]] void FailF(fmt::format_string<Args...> format, Args&&... args) {
  Fail(fmt::format(format, std::forward<Args>(args)...));
}

bool Hashable(const Value& value);
// A total order over hashable keys, consistent with Python's equality: <0, 0, >0.
int CompareKeys(const Value& a, const Value& b);
bool Truthy(const Value& value);
bool Equal(const Value& a, const Value& b);
// Python's a < b; fails for types that have no order.
bool Less(const Value& a, const Value& b);

std::string IntToString(Int value);
std::string DoubleRepr(double value);
std::optional<Int> ParseInt(std::string_view text, int base);  // as int(text, base)
std::optional<double> ParseDouble(std::string_view text);      // as float(text)
Text Str(const Value& value);                                  // str(value)
void AppendRepr(Text& out, const Value& value);                // repr(value)

}  // namespace bakestone::chat
