#include "server/api/fields.h"

#include <cmath>

#include <fmt/format.h>

#include "base/json_depth.h"
#include "server/api/api_error.h"

namespace bakestone::api {
namespace {

std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr size_t kMost = 60;
  return text.size() <= kMost ? text
                              : fmt::format("{} of {} bytes", value.type_name(), text.size());
}

}  // namespace

Json ParseBody(const std::string& body) {
  if (NestsDeeper(body, kMaxJsonDepth)) {
    Fail(400, fmt::format("the body is nested deeper than {} levels", kMaxJsonDepth),
         "invalid_json");
  }
  Json json;
  try {
    json = Json::parse(body);
  } catch (const nlohmann::json::exception& error) {
    // Without the library's own numbering: "[json.exception.parse_error.101] ".
    std::string_view what = error.what();
    if (const size_t end = what.find("] "); what.starts_with('[') && end != what.npos) {
      what.remove_prefix(end + 2);
    }
    Fail(400, fmt::format("the body is not valid JSON: {}", what), "invalid_json");
  }
  if (!json.is_object()) {
    Fail(400, fmt::format("the body must be a JSON object, found {}", json.type_name()),
         "invalid_json");
  }
  return json;
}

void Fields::Bad(const std::string& name, const std::string& message) const {
  BadField(Param(name), fmt::format("{}{}: {}", where_, name, message));
}

void Fields::Unsupported(const std::string& name, const std::string& message) const {
  UnsupportedField(Param(name), fmt::format("{}{}: {}", where_, name, message));
}

const Json* Fields::Find(const std::string& name) {
  read_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<double> Fields::Number(const std::string& name, double least, double most) {
  const Json* value = Find(name);
  if (!value) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : NAN;
  if (!(number >= least && number <= most)) {
    Bad(name, fmt::format("expected a number from {} to {}, found {}", least, most, Shown(*value)));
  }
  return number;
}

std::optional<int64_t> Fields::Integer(const std::string& name, int64_t least, int64_t most) {
  const Json* value = Find(name);
  if (!value) return std::nullopt;
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX});
  if (!fits || value->get<int64_t>() < least || value->get<int64_t>() > most) {
    Bad(name,
        fmt::format("expected an integer from {} to {}, found {}", least, most, Shown(*value)));
  }
  return value->get<int64_t>();
}

std::optional<bool> Fields::Bool(const std::string& name) {
  const Json* value = Find(name);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) {
    Bad(name, fmt::format("expected true or false, found {}", Shown(*value)));
  }
  return value->get<bool>();
}

std::optional<std::string> Fields::String(const std::string& name) {
  const Json* value = Find(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) Bad(name, fmt::format("expected a string, found {}", Shown(*value)));
  return value->get<std::string>();
}

std::string Fields::RequiredString(const std::string& name) {
  auto value = String(name);
  if (!value) Bad(name, "this field is required");
  return *value;
}

std::vector<std::string> Fields::Strings(const std::string& name, size_t most) {
  const Json* value = Find(name);
  if (!value) return {};
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array() || value->size() > most) {
    Bad(name, fmt::format("expected a string or a list of at most {} strings, found {}", most,
                          Shown(*value)));
  }
  std::vector<std::string> strings;
  for (const Json& item : *value) {
    if (!item.is_string()) Bad(name, fmt::format("expected strings, found {}", Shown(item)));
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

const Json* Fields::Object(const std::string& name) {
  const Json* value = Find(name);
  if (value && !value->is_object()) {
    Bad(name, fmt::format("expected an object, found {}", Shown(*value)));
  }
  return value;
}

void Fields::Ignore(std::initializer_list<const char*> names) {
  for (const char* name : names) read_.insert(name);
}

void Fields::Only(const std::string& name, const Json& value, std::string_view reason) {
  const Json* found = Find(name);
  if (!found || *found == value) return;
  Unsupported(
      name, fmt::format("{} (only {} is accepted), found {}", reason, value.dump(), Shown(*found)));
}

void Fields::Finish() const {
  for (const auto& item : object_.items()) {
    if (!read_.contains(item.key())) {
      const std::string shown = Shown(item.key());
      UnsupportedField(Param(item.key()),
                       fmt::format("{}{}: this field is not known here; it is refused because "
                                   "ignoring it could change the answer",
                                   where_, shown));
    }
  }
}

}  // namespace bakestone::api
