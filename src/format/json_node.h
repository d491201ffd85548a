// One object of tokenizer.json, with errors that say where it is. For the readers of that file
// only; source and json must outlive it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"

namespace bakestone {

inline constexpr int64_t kMaxJsonTokens = int64_t{1} << 24;
inline constexpr std::string_view kJsonSpaceMark = "\xE2\x96\x81";  // U+2581

class JsonNode {
 public:
  using Json = nlohmann::json;

  JsonNode(const std::string& source, std::string where, const Json& json)
      : source_(&source), where_(std::move(where)), json_(&json) {
    if (!json.is_object()) Fail("", "an object", json);
  }

  const Json* Find(const char* field) const {
    const auto found = json_->find(field);
    return found == json_->end() || found->is_null() ? nullptr : &*found;
  }
  bool Bool(const char* field, bool fallback) const {
    const Json* value = Find(field);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) Fail(field, "true or false", *value);
    return value->get<bool>();
  }
  std::string Text(const char* field, std::string fallback) const {
    const Json* value = Find(field);
    if (value == nullptr) return fallback;
    if (!value->is_string()) Fail(field, "a string", *value);
    return value->get<std::string>();
  }
  int64_t Id(const char* field) const {
    const Json* value = Find(field);
    const bool fits = value != nullptr && value->is_number_unsigned() &&
                      value->get<uint64_t>() < static_cast<uint64_t>(kMaxJsonTokens);
    if (!fits) {
      Fail(field, fmt::format("a token id below {}", kMaxJsonTokens), value ? *value : Json());
    }
    return value->get<int64_t>();
  }
  std::string type() const { return Text("type", ""); }

  std::string Spelled(std::string_view field) const {
    return fmt::format("{}: field '{}{}{}'", *source_, where_,
                       where_.empty() || field.empty() ? "" : ".", field);
  }
  [[noreturn]] void Fail(std::string_view field, std::string_view expected,
                         const Json& found) const {
    Throw(ErrorCode::kCorrupt, "{}: expected {}, found {}", Spelled(field), expected,
          found.is_structured() ? found.type_name()
                                : Quote(found.dump(-1, ' ', true, Json::error_handler_t::replace)));
  }
  [[noreturn]] void Refuse(std::string_view field, std::string_view expected,
                           std::string_view found) const {
    Throw(ErrorCode::kUnsupported,
          "{}: expected {}, found {}; without it the model would get other tokens than it was "
          "trained on",
          Spelled(field), expected, Quote(found));
  }
  const std::string& source() const { return *source_; }
  const std::string& where() const { return where_; }

 private:
  const std::string* source_;
  std::string where_;
  const Json* json_;
};

// The steps of a field, those of a Sequence one by one; `nested`: where a Sequence has them.
inline std::vector<JsonNode> StepsOf(const JsonNode& root, const char* field, const char* nested) {
  std::vector<JsonNode> steps;
  const nlohmann::json* value = root.Find(field);
  if (value == nullptr) return steps;
  const JsonNode first(root.source(), field, *value);
  if (first.type() != "Sequence") return {first};
  const nlohmann::json* list = first.Find(nested);
  if (list == nullptr || !list->is_array()) {
    first.Fail(nested, "a list", list ? *list : nlohmann::json());
  }
  for (size_t i = 0; i < list->size(); ++i) {
    steps.emplace_back(root.source(), fmt::format("{}.{}[{}]", field, nested, i), (*list)[i]);
  }
  return steps;
}

}  // namespace bakestone
