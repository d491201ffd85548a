// Reading a request's JSON body: depth-limited, every field with its type and range, every error
// naming its field, and nothing ignored in silence (Finish refuses what nobody asked for). JSON
// null means absent, as in OpenAI's API.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace bakestone::api {

using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;

// Throws ApiError 400: not UTF-8, not JSON, nested too deep, not an object.
Json ParseBody(const std::string& body);

class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}
  // An object inside of the body: messages say where ("messages[0]."), and errors carry the body's
  // field.
  Fields(const Json& object, std::string where, std::string param)
      : object_(object), where_(std::move(where)), param_(std::move(param)) {}

  const Json* Find(const std::string& name);  // null when absent; marks it as read
  std::optional<double> Number(const std::string& name, double least, double most);
  std::optional<int64_t> Integer(const std::string& name, int64_t least, int64_t most);
  std::optional<bool> Bool(const std::string& name);
  std::optional<std::string> String(const std::string& name);
  std::string RequiredString(const std::string& name);
  // A string or a list of strings.
  std::vector<std::string> Strings(const std::string& name, size_t most);

  const Json* Object(const std::string& name);  // null when absent

  void Ignore(std::initializer_list<const char*> names);  // they do not change the answer
  // Throws 400 if the field is there with another value than what this server does anyway.
  void Only(const std::string& name, const Json& value, std::string_view reason);
  // Throws 400 naming the first field that was not read.
  void Finish() const;

  // 400 for the named field.
  [[noreturn]] void Bad(const std::string& name, const std::string& message) const;
  [[noreturn]] void Unsupported(const std::string& name, const std::string& message) const;

 private:
  std::string Param(const std::string& name) const { return param_.empty() ? name : param_; }

  const Json& object_;
  std::string where_, param_;
  std::set<std::string> read_;
};

}  // namespace bakestone::api
