#include "text/dialog/call_values.h"

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "text/dialog/json_scanner.h"
#include "text/utf8.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;

std::string Dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Reads values in Python's syntax, or in the one with braces and bare names.
class ValueReader {
 public:
  ValueReader(std::string_view text, std::string_view quote) : text_(text), quote_(quote) {}

  size_t at() const { return at_; }
  bool ok() const { return ok_; }
  bool Take(std::string_view token) {
    SkipSpace();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  std::string Name() {
    SkipSpace();
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameChar(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  Json Value(int depth) {
    SkipSpace();
    if (at_ >= text_.size() || depth > kMaxDepth) return Fail();
    const char c = text_[at_];
    if (!quote_.empty() && Take(quote_)) return Quoted();
    if (c == '"' || c == '\'') return PythonString(c);
    if (c == '[' || c == '(') return List(c == '[' ? "]" : ")", depth);
    if (c == '{') return Object(depth);
    return Scalar();
  }
  Json Fail() {
    ok_ = false;
    return nullptr;
  }

 private:
  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  Json Quoted() {
    const size_t end = text_.find(quote_, at_);
    if (end == std::string_view::npos) {
      at_ = text_.size();
      return Fail();
    }
    std::string value(text_.substr(at_, end - at_));
    at_ = end + quote_.size();
    return value;
  }
  Json PythonString(char quote) {
    std::string value;
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      char c = text_[at_];
      if (c == '\\' && at_ + 1 < text_.size()) {
        c = text_[++at_];
        if (c == 'u' && CodeUnits(&value)) continue;
        c = c == 'n'   ? '\n'
            : c == 't' ? '\t'
            : c == 'r' ? '\r'
            : c == 'b' ? '\b'
            : c == 'f' ? '\f'
                       : c;
      }
      value += c;
    }
    if (at_ >= text_.size()) return Fail();
    ++at_;
    return value;
  }
  // Behind a backslash, at the u: four hexadecimal digits, and the second half of a pair. At the
  // last of them afterwards.
  bool CodeUnits(std::string* value) {
    const auto unit = [&](size_t at) -> int {
      const std::string_view digits = text_.substr(std::min(at, text_.size()), 4);
      unsigned code = 0;
      const auto [end, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
      return error == std::errc() && digits.size() == 4 && end == digits.data() + 4
                 ? static_cast<int>(code)
                 : -1;
    };
    const int high = unit(at_ + 1);
    if (high < 0 || (high >= 0xDC00 && high < 0xE000)) return false;
    if (high < 0xD800 || high >= 0xE000) {
      AppendUtf8(static_cast<uint32_t>(high), value);
      at_ += 4;
      return true;
    }
    const int low = text_.substr(at_ + 5).starts_with("\\u") ? unit(at_ + 7) : -1;
    if (low < 0xDC00 || low >= 0xE000) return false;
    AppendUtf8(0x10000 + (static_cast<uint32_t>(high - 0xD800) << 10) +
                   static_cast<uint32_t>(low - 0xDC00),
               value);
    at_ += 10;
    return true;
  }
  Json List(std::string_view close, int depth) {
    Json list = Json::array();
    ++at_;
    while (ok_ && !Take(close)) {
      list.push_back(Value(depth + 1));
      if (!Take(",") && !text_.substr(at_).starts_with(close)) return Fail();
    }
    return list;
  }
  Json Object(int depth) {
    Json object = Json::object();
    ++at_;
    while (ok_ && !Take("}")) {
      SkipSpace();
      const bool quoted = at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'');
      const Json quoted_name = quoted ? PythonString(text_[at_]) : Json(nullptr);
      const std::string name = quoted_name.is_string() ? quoted_name.get<std::string>() : Name();
      if (!ok_ || name.empty() || !Take(":")) return Fail();
      object[name] = Value(depth + 1);
      if (!Take(",") && !text_.substr(at_).starts_with("}")) return Fail();
    }
    return object;
  }
  Json Scalar() {
    const size_t begin = at_;
    while (at_ < text_.size() &&
           std::string_view(",)]} \n\t\r").find(text_[at_]) == std::string_view::npos) {
      ++at_;
    }
    const std::string word(text_.substr(begin, at_ - begin));
    if (word == "True") return true;
    if (word == "False") return false;
    if (word == "None") return nullptr;
    Json value = ParseBounded(word);
    return value.is_discarded() || value.is_structured() ? Fail() : value;
  }

  std::string_view text_, quote_;
  size_t at_ = 0;
  bool ok_ = true;
};

bool Allows(const Json& schema, const char* type) {
  const auto found = schema.find("type");
  if (found == schema.end()) return false;
  if (found->is_string()) return *found == type;
  if (!found->is_array()) return false;
  for (const Json& each : *found) {
    if (each == type) return true;
  }
  return false;
}

}  // namespace

bool IsStringOnly(const Json& schema) {
  if (schema.contains("enum") && schema["enum"].is_array()) {
    for (const Json& value : schema["enum"]) {
      if (!value.is_string()) return false;
    }
    return true;
  }
  const auto type = schema.find("type");
  return type != schema.end() &&
         (*type == "string" || (type->is_array() && type->size() == 1 && (*type)[0] == "string"));
}

Json ParameterValue(const std::string& text, const Json* schema) {
  if (schema && schema->is_object() && IsStringOnly(*schema)) return text;
  const size_t begin = text.find_first_not_of(" \n\t\r");
  const size_t end = text.find_last_not_of(" \n\t\r");
  const std::string word = begin == std::string::npos ? "" : text.substr(begin, end + 1 - begin);
  if (word == "True") return true;
  if (word == "False") return false;
  if (word == "None") return nullptr;
  Json value = ParseBounded(word);
  if (value.is_discarded()) return text;
  // "5" for a parameter that may be a string and may not be a number stays a string.
  const bool number_for_string = value.is_number() && schema && schema->is_object() &&
                                 Allows(*schema, "string") && !Allows(*schema, "number") &&
                                 !Allows(*schema, "integer");
  return number_for_string ? Json(text) : value;
}

std::optional<ReadCall> ReadPythonCall(std::string_view text, bool* cut) {
  ValueReader reader(text, "");
  ReadCall call;
  const auto fail = [&] {
    if (cut) *cut = reader.at() >= text.size();
    return std::nullopt;
  };
  call.name = reader.Name();
  if (call.name.ends_with(".call")) call.name.resize(call.name.size() - 5);
  if (call.name.empty() || !reader.Take("(")) return fail();
  Json arguments = Json::object();
  while (!reader.Take(")")) {
    const std::string key = reader.Name();
    if (key.empty() || !reader.Take("=")) return fail();
    arguments[key] = reader.Value(0);
    if (!reader.ok()) return fail();
    if (reader.Take(",")) continue;
    if (!reader.Take(")")) return fail();
    break;
  }
  call.arguments = Dumped(arguments);
  call.end = reader.at();
  return call;
}

std::optional<ReadCall> ReadBraces(std::string_view text, std::string_view quote, bool* cut) {
  ValueReader reader(text, quote);
  if (!text.starts_with('{')) return std::nullopt;
  const Json arguments = reader.Value(0);
  if (!reader.ok()) {
    if (cut) *cut = reader.at() >= text.size();
    return std::nullopt;
  }
  ReadCall call;
  call.arguments = Dumped(arguments);
  call.end = reader.at();
  return call;
}

}  // namespace bakestone::dialog
