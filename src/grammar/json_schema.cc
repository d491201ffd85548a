#include "grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/quote.h"
#include "grammar/ebnf.h"
#include "grammar/json_values.h"
#include "grammar/regex.h"
#include "grammar/schema_converter.h"
#include "grammar/schema_merge.h"

namespace bakestone::grammar {
namespace {

constexpr size_t kMaxRules = 20'000;
constexpr size_t kMaxBytes = size_t{1} << 20;  // of the grammar's text
constexpr int kMaxDepth = 96;  // of schemas in schemas, references and their targets not counted
constexpr int64_t kMaxCount = 100'000;  // items, characters

}  // namespace

void SchemaConverter::Add(const std::string& rule, const std::string& body) {
  rules_ += rule + " ::= " + body + "\n";
  if (++num_rules_ > kMaxRules || rules_.size() > kMaxBytes) {
    Throw(ErrorCode::kInvalidArgument,
          "the schema is too large: its grammar has more than {} rules or {} bytes", kMaxRules,
          kMaxBytes);
  }
}

std::string SchemaConverter::NewRule(const std::string& body) {
  const std::string name = fmt::format("{}r{}", prefix_, num_rules_);
  Add(name, body);
  return name;
}

std::string SchemaConverter::Reference(const std::string& pointer, const Place& place) {
  auto [found, is_new] =
      by_pointer_.emplace(pointer, fmt::format("{}ref{}", prefix_, by_pointer_.size()));
  if (is_new) {
    Resolve(root_, pointer, place.path);
    pending_.emplace_back(pointer, found->second);
  }
  if (!place.alone.empty()) alone_[place.alone].insert(found->second);
  return found->second;
}

SchemaRules SchemaConverter::Convert(const std::vector<std::string>& pointers) {
  SchemaRules result;
  // Each is a rule like any other that is referred to, so that "#" finds it.
  for (const std::string& pointer : pointers) {
    result.starts.push_back(Reference(pointer, {.path = pointer, .alone = {}}));
  }
  while (!pending_.empty()) {
    const auto [pointer, rule] = pending_.back();
    pending_.pop_back();
    const Expression body =
        Value(Resolve(root_, pointer, pointer), {.path = pointer, .alone = rule});
    if (!body && pointer == "#") {
      Throw(ErrorCode::kInvalidArgument, "the schema allows no value at all");
    }
    if (!body) RefuseKeyword(pointer, "$ref", "what it leads to allows no value");
    Add(rule, *body);
  }
  CheckEnds();
  result.rules = std::move(rules_);
  return result;
}

void SchemaConverter::CheckEnds() const {
  std::set<std::string> done, open;
  const auto visit = [&](const auto& self, const std::string& rule) -> void {
    if (done.contains(rule)) return;
    if (!open.insert(rule).second) {
      Throw(ErrorCode::kInvalidArgument,
            "the schema has a $ref that leads back to itself with nothing in between");
    }
    const auto found = alone_.find(rule);
    if (found != alone_.end()) {
      for (const std::string& next : found->second) self(self, next);
    }
    done.insert(rule);
  };
  for (const auto& [rule, next] : alone_) visit(visit, rule);
}

void SchemaConverter::CheckKeywords(const Json& schema, const Place& place) const {
  static const std::set<std::string> kKnown = {"$ref",
                                               "allOf",
                                               "anyOf",
                                               "oneOf",
                                               "enum",
                                               "const",
                                               "type",
                                               "properties",
                                               "required",
                                               "additionalProperties",
                                               "unevaluatedProperties",
                                               "patternProperties",
                                               "propertyNames",
                                               "minProperties",
                                               "maxProperties",
                                               "items",
                                               "prefixItems",
                                               "minItems",
                                               "maxItems",
                                               "unevaluatedItems",
                                               "minLength",
                                               "maxLength",
                                               "pattern",
                                               "format",
                                               "minimum",
                                               "maximum",
                                               "exclusiveMinimum",
                                               "exclusiveMaximum",
                                               "multipleOf"};
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword == "uniqueItems" && value == false) continue;
    if (keyword == "$id" && place.path == "#") continue;
    const bool draft = value.is_string() &&
                       value.get<std::string>().find("//json-schema.org/") != std::string::npos;
    if (keyword == "$schema" && !draft) {
      RefuseKeyword(place.path, keyword, "only the drafts of json-schema.org are known");
    }
    if (kKnown.contains(keyword) || IsAnnotation(keyword)) continue;
    RefuseKeyword(place.path, keyword,
                  "this keyword is not supported: an answer could not be held to it");
  }
}

Expression SchemaConverter::Value(const Json& schema, const Place& place) {
  if (schema.is_boolean()) return schema.get<bool>() ? Expression("value") : std::nullopt;
  if (!schema.is_object()) {
    Throw(ErrorCode::kInvalidArgument,
          "the schema at {}: expected an object or a boolean, found {}", Quote(place.path),
          schema.type_name());
  }
  if (++num_values_ > kMaxRules) {
    Throw(ErrorCode::kInvalidArgument, "the schema is too large: it comes to more than {} schemas",
          kMaxRules);
  }
  if (place.depth > kMaxDepth) {
    Throw(ErrorCode::kInvalidArgument, "the schema at {}: nested deeper than {}", Quote(place.path),
          kMaxDepth);
  }
  CheckKeywords(schema, place);
  if (schema.contains("$ref") || schema.contains("allOf")) return Conjunction(schema, place);
  if (schema.contains("anyOf") && schema.contains("oneOf")) {
    RefuseKeyword(place.path, "oneOf", "not together with anyOf");
  }
  if (schema.contains("anyOf")) return Options(schema, "anyOf", place);
  if (schema.contains("oneOf")) return Options(schema, "oneOf", place);
  if (schema.contains("enum") || schema.contains("const")) return Enumerated(schema, place);
  return Typed(schema, place);
}

// $ref and allOf beside what else the schema says, as one schema.
Expression SchemaConverter::Conjunction(const Json& schema, const Place& place) {
  Json rest = Json::object();
  std::vector<std::pair<Json, std::string>> parts;
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword == "$ref") {
      if (!value.is_string()) RefuseKeyword(place.path, "$ref", "expected a string");
      parts.emplace_back(Resolve(root_, value.get<std::string>(), place.path),
                         value.get<std::string>());
    } else if (keyword == "allOf") {
      if (!value.is_array() || value.empty()) {
        RefuseKeyword(place.path, "allOf", "expected a list of schemas");
      }
      for (size_t i = 0; i < value.size(); ++i) {
        parts.emplace_back(value[i], fmt::format("{}/allOf/{}", place.path, i));
      }
    } else if (!IsAnnotation(keyword)) {
      rest[keyword] = value;
    }
  }
  const bool is_draft_7 = root_.is_object() && root_.contains("$schema") &&
                          root_["$schema"].is_string() &&
                          root_["$schema"].get<std::string>().find("draft-0") != std::string::npos;
  if (schema.contains("$ref") && is_draft_7 && (!rest.empty() || parts.size() > 1)) {
    RefuseKeyword(place.path, "$ref",
                  "in this draft of JSON Schema it hides what stands beside it; take that away");
  }
  if (rest.empty() && parts.size() == 1) {
    if (schema.contains("$ref")) return Reference(schema["$ref"].get<std::string>(), place);
    return Value(parts[0].first, place.Same("allOf/0"));
  }
  for (const auto& [part, where] : parts) {
    if (part == true) continue;
    if (part == false) return std::nullopt;
    if (!part.is_object()) {
      Throw(ErrorCode::kInvalidArgument, "the schema at {}: expected an object or a boolean",
            Quote(where));
    }
    CheckKeywords(part, {.path = where, .alone = {}});
    // A reference in a part would meet that of another part: one after the other.
    rest = part.contains("$ref") && rest.contains("$ref")
               ? Merge(rest, {{"allOf", Json::array({part})}}, where)
               : Merge(rest, part, where);
  }
  constexpr int kMaxHops = 64;
  if (++hops_ > kMaxHops) {
    RefuseKeyword(place.path, "$ref", "it leads back to itself, or through too many others");
  }
  Expression result = Value(rest, place);
  --hops_;
  return result;
}

Expression SchemaConverter::Options(Json schema, const char* keyword, const Place& place) {
  const Json options = schema[keyword];
  if (!options.is_array() || options.empty()) {
    RefuseKeyword(place.path, keyword, "expected a list of schemas");
  }
  schema.erase(keyword);
  for (const char* unevaluated : {"unevaluatedProperties", "unevaluatedItems"}) {
    const bool several = options.size() > 1 && std::string_view(keyword) == "anyOf";
    if (several && schema.value(unevaluated, Json(true)) != true) {
      RefuseKeyword(place.path, unevaluated,
                    "not together with anyOf, of which several options may hold");
    }
  }
  Json rest = Json::object();
  for (const auto& [name, value] : schema.items()) {
    if (!IsAnnotation(name)) rest[name] = value;
  }
  Json merged = Json::array();
  for (size_t i = 0; i < options.size(); ++i) {
    const std::string where = fmt::format("{}/{}/{}", place.path, keyword, i);
    if (options[i] == false) continue;
    if (options[i].is_object() && !rest.empty()) {
      CheckKeywords(options[i], {.path = where, .alone = {}});
      merged.push_back(Merge(rest, options[i], where));
    } else {
      merged.push_back(options[i] == true && !rest.empty() ? rest : options[i]);
    }
  }
  if (std::string_view(keyword) == "oneOf") ProveDisjoint(root_, merged, place.path);
  std::vector<std::string> choices;
  for (size_t i = 0; i < merged.size(); ++i) {
    if (auto choice = Value(merged[i], place.Same(fmt::format("{}/{}", keyword, i)))) {
      choices.push_back(std::move(*choice));
    }
  }
  return choices.empty() ? Expression() : Alternatives(choices);
}

Expression SchemaConverter::Enumerated(const Json& schema, const Place& place) {
  const bool one = schema.contains("const");
  const char* keyword = one ? "const" : "enum";
  if (one && schema.contains("enum")) RefuseKeyword(place.path, "const", "not together with enum");
  for (const auto& [name, value] : schema.items()) {
    if (name != keyword && name != "type" && !IsAnnotation(name)) {
      RefuseKeyword(
          place.path, name,
          fmt::format("not together with {}: leave the values out that it forbids", keyword));
    }
  }
  const Json values = one ? Json::array({schema["const"]}) : schema["enum"];
  if (!values.is_array() || values.empty()) {
    RefuseKeyword(place.path, "enum", "expected a list of values");
  }
  const Json types = !schema.contains("type")    ? Json::array()
                     : schema["type"].is_array() ? schema["type"]
                                                 : Json::array({schema["type"]});
  std::vector<std::string> choices;
  for (const Json& value : values) {
    const bool fits =
        types.empty() || std::any_of(types.begin(), types.end(), [&](const Json& type) {
          return type.is_string() && HasType(value, type.get<std::string>());
        });
    if (fits) choices.push_back(ValueLiteral(value));
  }
  return choices.empty() ? Expression() : Alternatives(choices);
}

Expression SchemaConverter::Typed(const Json& schema, const Place& place) {
  static const std::set<std::string> kTypes = {"object",  "array",   "string", "number",
                                               "integer", "boolean", "null"};
  std::vector<std::string> types;
  if (schema.contains("type")) {
    const Json& type = schema["type"];
    for (const Json& name : type.is_array() ? type : Json::array({type})) {
      if (!name.is_string() || !kTypes.contains(name.get<std::string>())) {
        RefuseKeyword(place.path, "type", "expected names of JSON's types");
      }
      types.push_back(name.get<std::string>());
    }
    if (types.empty()) RefuseKeyword(place.path, "type", "expected a name or a list of names");
  } else {
    const auto& items = schema.items();
    if (std::all_of(items.begin(), items.end(), [](const auto& item) {
          return IsAnnotation(item.key()) || item.key() == "$id";
        })) {
      return "value";
    }
    types = {"object", "array", "string", "number", "boolean", "null"};
  }
  std::vector<std::string> choices;
  for (const std::string& type : types) {
    if (type == "integer" && std::find(types.begin(), types.end(), "number") != types.end()) {
      continue;
    }
    if (auto choice = OfType(schema, type, place)) choices.push_back(std::move(*choice));
  }
  return choices.empty() ? Expression() : Alternatives(choices);
}

Expression SchemaConverter::OfType(const Json& schema, const std::string& type,
                                   const Place& place) {
  if (type == "object") return Object(schema, place);
  if (type == "array") return Array(schema, place);
  if (type == "string") return String(schema, place);
  if (type == "number" || type == "integer") return Number(schema, type == "integer", place);
  return type == "null" ? "\"null\"" : "(\"true\" | \"false\")";
}

int64_t SchemaConverter::Count(const Json& schema, const char* keyword, int64_t otherwise,
                               const Place& place) const {
  if (!schema.contains(keyword)) return otherwise;
  const Json& value = schema[keyword];
  if (!HasType(value, "integer") || value.get<double>() < 0 ||
      value.get<double>() > static_cast<double>(kMaxCount)) {
    RefuseKeyword(place.path, keyword,
                  fmt::format("expected a whole number from 0 to {}", kMaxCount));
  }
  return static_cast<int64_t>(value.get<double>());
}

Expression SchemaConverter::String(const Json& schema, const Place& place) {
  const int64_t least = Count(schema, "minLength", 0, place),
                most = Count(schema, "maxLength", -1, place);
  const bool counted = least > 0 || most >= 0;
  for (const char* keyword : {"pattern", "format"}) {
    if (!schema.contains(keyword)) continue;
    if (!schema[keyword].is_string()) RefuseKeyword(place.path, keyword, "expected a string");
    if (counted) {
      RefuseKeyword(place.path, keyword,
                    "not together with minLength or maxLength: say the length in a pattern");
    }
  }
  if (schema.contains("pattern") && schema.contains("format")) {
    RefuseKeyword(place.path, "format", "not together with pattern");
  }
  std::string pattern;
  RegexOptions options{.json = true, .search = true};
  if (schema.contains("pattern")) pattern = schema["pattern"].get<std::string>();
  if (schema.contains("format")) {
    const char* known = FormatPattern(schema["format"].get<std::string>());
    if (!known) {
      RefuseKeyword(
          place.path, "format",
          fmt::format(
              "{} is not supported (only date, time, date-time, uuid and ipv4 are): use a pattern",
              Quote(schema["format"].get<std::string>())));
    }
    pattern = known;
    options.search = false;
  }
  if (schema.contains("pattern") || schema.contains("format")) {
    try {
      return "\"\\\"\" " + FromRegex(pattern, options) + " \"\\\"\"";
    } catch (const Error& error) {
      RefuseKeyword(place.path, "pattern", error.what());
    }
  }
  if (!counted) return "string";
  if (most >= 0 && least > most) return std::nullopt;
  return "\"\\\"\" " + Counted("character", least, most) + " \"\\\"\"";
}

Expression SchemaConverter::Number(const Json& schema, bool integer, const Place& place) {
  NumberBounds bounds = ReadBounds(schema, place.path);
  const std::string expression =
      integer ? IntegerExpression(bounds, fmt::format("{}multiple{}-", prefix_, num_values_),
                                  place.path)
              : NumberExpression(bounds, place.path);
  rules_ += bounds.rules;
  return expression.empty() ? Expression() : expression;
}

SchemaRules RulesOfSchema(const Json& schema, const std::vector<std::string>& pointers,
                          const std::string& prefix) {
  return SchemaConverter(schema, prefix).Convert(pointers);
}

std::string FromJsonSchema(const Json& schema) {
  const SchemaRules rules = RulesOfSchema(schema, {"#"}, "");
  return "root ::= " + rules.starts[0] + "\n" + rules.rules + JsonValueRules();
}

std::string AnyJsonObject() { return "root ::= object\n" + std::string(JsonValueRules()); }

std::string WholeRegex(std::string_view pattern) {
  return "root ::= " + FromRegex(pattern, {}) + "\n";
}

std::string AnyOfTexts(const std::vector<std::string>& texts) {
  std::vector<std::string> choices;
  for (const std::string& text : texts) choices.push_back(Literal(text));
  return "root ::= " + Alternatives(choices) + "\n";
}

}  // namespace bakestone::grammar
