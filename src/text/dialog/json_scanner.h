// Follows JSON that arrives in pieces, far enough to know where it ends: a model's tool call is
// read while it is being written. Neither class allocates by nesting beyond kMaxDepth, and neither
// checks more of JSON than brackets, strings and the places of commas and colons need: what a model
// writes wrongly inside a value is passed on as it is.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace bakestone::dialog {

// One value: object, array, string, number or literal.
class JsonScanner {
 public:
  static constexpr size_t kMaxDepth = 256;

  // Returns how many bytes belong to the value (white space before it too). Fewer than given: done
  // or failed. The end of a number or literal is seen at the byte after it.
  size_t Feed(std::string_view bytes);
  bool begun() const { return begun_; }
  bool done() const { return done_; }
  bool failed() const { return failed_; }  // no value starts so, or brackets do not match

 private:
  void Begin(char c);
  bool InScalar(char c) const;

  std::vector<char> open_;
  bool begun_ = false, in_string_ = false, escaped_ = false, scalar_ = false, done_ = false,
       failed_ = false;
};

// The value, or a discarded one where the text is no JSON or is nested deeper than kMaxDepth, which
// what walks it again, or writes it, might not bear.
nlohmann::ordered_json ParseBounded(const std::string& text);

// The object that a tool call is in many syntaxes: {"name": "f", "arguments": {...}}, in any order,
// among other keys, or {"f": {...}}. The arguments' bytes are handed on as they come.
class CallObjectScanner {
 public:
  // Without name_key, the object's only key is the name and its value the arguments.
  CallObjectScanner(std::string name_key, std::string arguments_key)
      : name_key_(std::move(name_key)), arguments_key_(std::move(arguments_key)) {}

  size_t Feed(std::string_view bytes);  // as JsonScanner's
  bool done() const { return state_ == State::kDone; }
  bool failed() const { return state_ == State::kFailed; }
  bool has_name() const { return has_name_; }
  const std::string& name() const { return name_; }
  // What came of the arguments since the last call: a string that holds JSON is unwrapped.
  std::string TakeArguments() { return std::exchange(arguments_, {}); }
  bool saw_arguments() const { return saw_arguments_; }

 private:
  enum class State { kBegin, kKey, kColon, kValue, kAfterValue, kDone, kFailed };
  void EndKey();
  void FeedValue(std::string_view bytes);
  void EndValue();

  const std::string name_key_, arguments_key_;
  State state_ = State::kBegin;
  JsonScanner value_;
  std::string text_;  // the key, or the value that is needed whole
  std::string key_, name_, arguments_;
  bool has_name_ = false, saw_arguments_ = false, first_key_ = true;
};

}  // namespace bakestone::dialog
