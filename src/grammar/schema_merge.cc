#include "grammar/schema_merge.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"

namespace bakestone::grammar {
namespace {

constexpr int kMaxHops = 32;  // from reference to reference

bool Has(const Json& schema, const char* keyword) { return schema.contains(keyword); }

// Both lists of types, each a name or a list of names.
Json CommonTypes(const Json& a, const Json& b, const std::string& place) {
  const auto list = [](const Json& types) {
    return types.is_array() ? types : Json::array({types});
  };
  Json common = Json::array();
  for (const Json& left : list(a)) {
    for (const Json& right : list(b)) {
      const bool narrow = left == "integer" && right == "number";
      if ((left == right || narrow) &&
          std::find(common.begin(), common.end(), left) == common.end()) {
        common.push_back(left);
      }
      if (left == "number" && right == "integer" &&
          std::find(common.begin(), common.end(), right) == common.end()) {
        common.push_back(right);
      }
    }
  }
  if (common.empty()) {
    RefuseKeyword(place, "type", "no value has all of the types that are asked for");
  }
  return common;
}

bool NamesWithin(const Json& schema, const Json& other) {
  if (Has(schema, "patternProperties")) return false;
  if (!Has(schema, "properties")) return true;
  if (!schema["properties"].is_object() || !Has(other, "properties") ||
      !other["properties"].is_object()) {
    return false;
  }
  const auto& names = schema["properties"].items();
  return std::all_of(names.begin(), names.end(),
                     [&](const auto& item) { return other["properties"].contains(item.key()); });
}

// What `additionalProperties` or `items` says depends on the keywords beside it, and on no others.
void CheckNeighbours(const Json& outer, const Json& part, const std::string& place) {
  for (const char* keyword : {"unevaluatedProperties", "unevaluatedItems"}) {
    if (Has(part, keyword)) {
      RefuseKeyword(place, keyword,
                    "inside of allOf, anyOf, oneOf or a referenced schema it cannot be put "
                    "together with what is outside");
    }
  }
  const auto check = [&](const Json& closed, const Json& open) {
    if (Has(closed, "additionalProperties") && closed["additionalProperties"] != true &&
        !NamesWithin(open, closed)) {
      RefuseKeyword(
          place, "additionalProperties",
          "it cannot be put together with properties that another part of the schema names");
    }
    if (Has(closed, "items") && Has(open, "prefixItems")) {
      RefuseKeyword(place, "items",
                    "it cannot be put together with the prefixItems of another part of the schema");
    }
  };
  check(outer, part);
  check(part, outer);
}

Json Both(const Json& a, const Json& b) { return {{"allOf", Json::array({a, b})}}; }

void MergeKeyword(const std::string& keyword, const Json& value, const std::string& place,
                  Json* into) {
  static constexpr std::array kGreater = {"minimum", "exclusiveMinimum", "minLength", "minItems",
                                          "minProperties"};
  static constexpr std::array kLess = {"maximum", "exclusiveMaximum", "maxLength", "maxItems",
                                       "maxProperties"};
  Json& mine = (*into)[keyword];
  const auto is_one_of = [&](const auto& names) {
    return std::find(names.begin(), names.end(), keyword) != names.end();
  };
  const bool numbers = mine.is_number() && value.is_number();
  if (keyword == "type") {
    mine = CommonTypes(mine, value, place);
  } else if (numbers && is_one_of(kGreater)) {
    mine = std::max(mine, value);
  } else if (numbers && is_one_of(kLess)) {
    mine = std::min(mine, value);
  } else if (keyword == "required" && mine.is_array() && value.is_array()) {
    for (const Json& name : value) {
      if (std::find(mine.begin(), mine.end(), name) == mine.end()) mine.push_back(name);
    }
  } else if (keyword == "properties" && mine.is_object() && value.is_object()) {
    for (const auto& [name, schema] : value.items()) {
      const auto found = mine.find(name);
      if (found == mine.end()) {
        mine[name] = schema;
      } else if (*found != schema) {
        *found = Both(*found, schema);
      }
    }
  } else if (keyword == "items") {
    mine = Both(mine, value);
  } else if (keyword == "allOf" && mine.is_array() && value.is_array()) {
    for (const Json& part : value) mine.push_back(part);
  } else {
    RefuseKeyword(place, keyword,
                  "two parts of the schema have it, and they cannot be put together");
  }
}

// What oneOf's proof looks at.
struct Summary {
  std::set<std::string> types;  // that its values can have; "integer" is told as "number"
  std::optional<std::vector<Json>> values;  // all of them
  std::set<std::string> required;
  Json properties = Json::object();
};

constexpr std::array kTypes = {"null", "boolean", "number", "string", "array", "object"};

Summary Summarize(const Json& root, const Json& schema, const std::string& place, int hops) {
  Summary summary;
  summary.types.insert(kTypes.begin(), kTypes.end());
  if (!schema.is_object()) return summary;
  if (Has(schema, "$ref") && schema["$ref"].is_string()) {
    if (hops > kMaxHops) return summary;
    return Summarize(root, Resolve(root, schema["$ref"].get<std::string>(), place), place,
                     hops + 1);
  }
  if (Has(schema, "const")) summary.values = std::vector<Json>(1, schema["const"]);
  if (Has(schema, "enum") && schema["enum"].is_array()) {
    summary.values = schema["enum"].get<std::vector<Json>>();
  }
  if (summary.values || Has(schema, "type")) summary.types.clear();
  if (summary.values) {
    for (const Json& value : *summary.values) {
      for (const char* type : kTypes) {
        if (HasType(value, type)) summary.types.insert(type);
      }
    }
  } else if (Has(schema, "type")) {
    const Json& type = schema["type"];
    for (const Json& name : type.is_array() ? type : Json::array({type})) {
      if (name.is_string()) {
        summary.types.insert(name == "integer" ? "number" : name.get<std::string>());
      }
    }
  }
  if (Has(schema, "required") && schema["required"].is_array()) {
    for (const Json& name : schema["required"]) {
      if (name.is_string()) summary.required.insert(name.get<std::string>());
    }
  }
  if (Has(schema, "properties") && schema["properties"].is_object()) {
    summary.properties = schema["properties"];
  }
  return summary;
}

bool Disjoint(const Json& root, const Summary& a, const Summary& b, const std::string& place,
              int depth) {
  if (std::none_of(a.types.begin(), a.types.end(),
                   [&](const auto& type) { return b.types.contains(type); })) {
    return true;
  }
  if (a.values && b.values) {
    return std::none_of(a.values->begin(), a.values->end(), [&](const Json& value) {
      return std::find(b.values->begin(), b.values->end(), value) != b.values->end();
    });
  }
  const std::set<std::string> object = {"object"};
  if (a.types != object || b.types != object || depth > 0) return false;
  return std::any_of(a.required.begin(), a.required.end(), [&](const std::string& name) {
    if (!b.required.contains(name) || !a.properties.contains(name) ||
        !b.properties.contains(name)) {
      return false;
    }
    return Disjoint(root, Summarize(root, a.properties[name], place, 0),
                    Summarize(root, b.properties[name], place, 0), place, depth + 1);
  });
}

std::string Unescaped(std::string_view part, const std::string& reference,
                      const std::string& place) {
  std::string text;
  for (size_t i = 0; i < part.size(); ++i) {
    const auto hex = [&](size_t at) {
      const char c = at < part.size() ? part[at] : 'x';
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                    : -1;
    };
    if (part[i] == '%' && hex(i + 1) >= 0 && hex(i + 2) >= 0) {
      text += static_cast<char>(hex(i + 1) * 16 + hex(i + 2));
      i += 2;
    } else {
      text += part[i];
    }
  }
  std::string name;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '~') {
      name += text[i];
    } else if (i + 1 < text.size() && (text[i + 1] == '0' || text[i + 1] == '1')) {
      name += text[++i] == '0' ? '~' : '/';
    } else {
      RefuseKeyword(place, "$ref", fmt::format("{} is no JSON pointer", Quote(reference)));
    }
  }
  return name;
}

}  // namespace

void RefuseKeyword(const std::string& place, std::string_view keyword, std::string_view why) {
  Throw(ErrorCode::kInvalidArgument, "the schema at {}: '{}': {}", Quote(place),
        std::string(keyword.substr(0, 100)), why);
}

bool IsAnnotation(std::string_view keyword) {
  static constexpr std::array<std::string_view, 15> kAnnotations = {
      "title",       "description",     "default",          "examples",      "deprecated",
      "readOnly",    "writeOnly",       "$comment",         "$schema",       "$defs",
      "definitions", "contentEncoding", "contentMediaType", "contentSchema", "discriminator"};
  return std::find(kAnnotations.begin(), kAnnotations.end(), keyword) != kAnnotations.end();
}

bool HasType(const Json& value, std::string_view type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "number") return value.is_number();
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
  }
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  return type == "object" && value.is_object();
}

const Json& Resolve(const Json& root, const std::string& reference, const std::string& place) {
  if (reference != "#" && !reference.starts_with("#/")) {
    RefuseKeyword(place, "$ref",
                  fmt::format("{} leads out of the schema or to an anchor; only \"#\" and JSON "
                              "pointers (\"#/$defs/name\") are followed",
                              Quote(reference)));
  }
  const Json* at = &root;
  for (size_t begin = 2; reference.size() > 1 && begin <= reference.size();) {
    const size_t end = std::min(reference.find('/', begin), reference.size());
    const std::string name =
        Unescaped(std::string_view(reference).substr(begin, end - begin), reference, place);
    if (at->is_object() && at->contains("$id") && at != &root) {
      RefuseKeyword(
          place, "$ref",
          fmt::format("{} leads through a schema with an $id of its own", Quote(reference)));
    }
    if (at->is_object() && at->contains(name)) {
      at = &(*at)[name];
    } else if (at->is_array() && !name.empty() && name.size() < 6 &&
               name.find_first_not_of("0123456789") == std::string::npos &&
               std::stoul(name) < at->size()) {
      at = &(*at)[std::stoul(name)];
    } else {
      RefuseKeyword(place, "$ref", fmt::format("{} leads nowhere", Quote(reference)));
    }
    begin = end + 1;
  }
  return *at;
}

Json Merge(const Json& outer, const Json& part, const std::string& place) {
  CheckNeighbours(outer, part, place);
  Json merged = outer;
  for (const auto& [keyword, value] : part.items()) {
    if (IsAnnotation(keyword)) continue;
    const auto found = merged.find(keyword);
    if (found == merged.end()) {
      merged[keyword] = value;
    } else if (*found != value) {
      MergeKeyword(keyword, value, place, &merged);
    }
  }
  return merged;
}

void ProveDisjoint(const Json& root, const Json& options, const std::string& place) {
  std::vector<Summary> summaries;
  for (const Json& option : options) summaries.push_back(Summarize(root, option, place, 0));
  for (size_t i = 0; i < summaries.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (Disjoint(root, summaries[i], summaries[j], place, 0)) continue;
      RefuseKeyword(place, "oneOf",
                    fmt::format("options {} and {} may both hold; only options of different types, "
                                "or told apart by a required property with "
                                "different const or enum, are supported: use anyOf",
                                j, i));
    }
  }
}

}  // namespace bakestone::grammar
