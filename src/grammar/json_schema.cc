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
#include "grammar/schema_merge.h"

namespace bakestone::grammar {
namespace {

constexpr size_t kMaxRules = 20'000;
constexpr size_t kMaxBytes = size_t{1} << 20;  // of the grammar's text
constexpr int kMaxDepth = 96;  // of schemas in schemas, references and their targets not counted
constexpr int64_t kMaxCount = 100'000;  // items, characters

// Where a schema is, and of which rule its values are the whole: rules that stand for one another
// alone would never end.
struct Place {
  std::string path;
  std::string alone;  // empty: something stands before or after
  int depth = 0;

  Place Inner(const std::string& more) const { return {path + "/" + more, "", depth + 1}; }
  Place Same(const std::string& more) const { return {path + "/" + more, alone, depth + 1}; }
};

// nullopt: no value is allowed.
using Expression = std::optional<std::string>;

class SchemaConverter {
 public:
  // prefix: begins the names of all rules.
  SchemaConverter(const Json& root, std::string prefix) : root_(root), prefix_(std::move(prefix)) {}
  SchemaRules Convert(const std::vector<std::string>& pointers);

 private:
  Expression Value(const Json& schema, const Place& place);
  Expression Conjunction(const Json& schema, const Place& place);
  Expression Options(Json schema, const char* keyword, const Place& place);
  Expression Enumerated(const Json& schema, const Place& place);
  Expression Typed(const Json& schema, const Place& place);
  Expression OfType(const Json& schema, const std::string& type, const Place& place);
  Expression Object(const Json& schema, const Place& place);
  Expression Members(const Json& schema, const Place& place);
  Expression FreeMembers(const Json& schema, const std::string& key, const Json& value,
                         const Place& place);
  Expression Array(const Json& schema, const Place& place);
  Expression String(const Json& schema, const Place& place);
  Expression Number(const Json& schema, bool integer, const Place& place);

  void CheckKeywords(const Json& schema, const Place& place) const;
  int64_t Count(const Json& schema, const char* keyword, int64_t otherwise,
                const Place& place) const;
  std::string Reference(const std::string& pointer, const Place& place);
  std::string NewRule(const std::string& body);
  std::string Key(const std::string& name) const {
    return "\"\\\"\" " + JsonLiteral(name) + " \"\\\"\" ws \":\" ws";
  }
  std::string KeyOtherThan(const std::vector<std::string>& names);
  void Add(const std::string& rule, const std::string& body);
  void CheckEnds() const;

  const Json& root_;
  const std::string prefix_;
  std::string rules_;
  size_t num_rules_ = 0;
  std::map<std::string, std::string> by_pointer_;             // reference -> rule
  std::vector<std::pair<std::string, std::string>> pending_;  // the same, to be written
  std::map<std::string, std::set<std::string>> alone_;  // rule -> rules that it may be nothing but
  int hops_ = 0;
  size_t num_values_ = 0;  // schemas looked at
};

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

Expression SchemaConverter::Array(const Json& schema, const Place& place) {
  if (schema.contains("items") && schema["items"].is_array()) {
    RefuseKeyword(place.path, "items", "a list belongs into prefixItems");
  }
  const int64_t least = Count(schema, "minItems", 0, place),
                most = Count(schema, "maxItems", -1, place);
  const Json prefix = schema.contains("prefixItems") ? schema["prefixItems"] : Json::array();
  if (!prefix.is_array()) RefuseKeyword(place.path, "prefixItems", "expected a list of schemas");
  const char* rest_name = schema.contains("items") ? "items" : "unevaluatedItems";
  const Expression rest = schema.contains(rest_name)
                              ? Value(schema[rest_name], place.Inner(rest_name))
                              : Expression("value");
  std::vector<Expression> items;
  for (size_t i = 0; i < prefix.size(); ++i) {
    items.push_back(Value(prefix[i], place.Inner(fmt::format("prefixItems/{}", i))));
  }
  const auto item = [&](int64_t i) {
    return i < static_cast<int64_t>(items.size()) ? items[static_cast<size_t>(i)] : rest;
  };
  // As many as there can be: the first that nothing satisfies ends it.
  int64_t room = most;
  for (int64_t i = 0; i <= static_cast<int64_t>(items.size()); ++i) {
    if (!item(i) && (room < 0 || i < room)) room = i;
  }
  if (room >= 0 && least > room) return std::nullopt;
  if (room == 0) return "\"[\" ws \"]\"";

  // What may follow once `count` items are there, from the last to the first.
  const auto count = static_cast<int64_t>(items.size());
  std::string after;
  if (rest && (room < 0 || room > count)) {
    const int64_t from = std::max<int64_t>(count, 1);
    after = Repeat(NewRule("ws \",\" ws " + *rest), std::max<int64_t>(least - from, 0),
                   room < 0 ? -1 : room - from);
  }
  for (int64_t i = std::min(count, room < 0 ? count : room) - 1; i >= 1; --i) {
    const std::string more = fmt::format("ws \",\" ws {} {}", *item(i), after);
    after = NewRule(i < least ? more : "\"\" | " + more);
  }
  const std::string some = fmt::format("\"[\" ws {} {} ws \"]\"", *item(0), after);
  return NewRule(least > 0 ? some : some + " | \"[\" ws \"]\"");
}

// A key that is none of these names, in its only spelling: other escapes are left out, so that no
// name comes back in disguise.
std::string SchemaConverter::KeyOtherThan(const std::vector<std::string>& names) {
  if (names.empty()) return "string";
  return "\"\\\"\" " +
         TextOtherThan(names, [this](const std::string& body) { return NewRule(body); });
}

// Members without `properties`: each key an instance of one expression.
Expression SchemaConverter::FreeMembers(const Json& schema, const std::string& key,
                                        const Json& value, const Place& place) {
  const int64_t least = Count(schema, "minProperties", 0, place),
                most = Count(schema, "maxProperties", -1, place);
  if (least > 1) {
    RefuseKeyword(place.path, "minProperties",
                  "more than 1 is not supported without as many required properties: a key may be "
                  "written twice");
  }
  const Expression content =
      most == 0 ? Expression() : Value(value, place.Inner("additionalProperties"));
  if (!content) return least > 0 ? Expression() : "\"{\" ws \"}\"";
  const std::string member = NewRule(key + " ws \":\" ws " + *content);
  const std::string more = NewRule("ws \",\" ws " + member);
  const std::string some =
      fmt::format("\"{{\" ws {} {} ws \"}}\"", member, Repeat(more, 0, most < 0 ? -1 : most - 1));
  return NewRule(least > 0 ? some : some + " | \"{\" ws \"}\"");
}

Expression SchemaConverter::Object(const Json& schema, const Place& place) {
  static const Json kAny = true;
  const char* rest_name =
      schema.contains("additionalProperties") ? "additionalProperties" : "unevaluatedProperties";
  const Json& rest = schema.contains(rest_name) ? schema[rest_name] : kAny;
  const bool named = (schema.contains("properties") && !schema["properties"].empty()) ||
                     (schema.contains("required") && !schema["required"].empty());
  for (const char* keyword : {"properties", "patternProperties"}) {
    if (schema.contains(keyword) && !schema[keyword].is_object()) {
      RefuseKeyword(place.path, keyword, "expected an object of schemas");
    }
  }
  const bool patterns =
      schema.contains("patternProperties") && !schema["patternProperties"].empty();
  if (patterns) {
    const Json& all = schema["patternProperties"];
    if (named || all.size() != 1 || rest != false || schema.contains("propertyNames")) {
      RefuseKeyword(place.path, "patternProperties",
                    "only one pattern is supported, with \"additionalProperties\": false and "
                    "without properties, required and propertyNames");
    }
    const auto item = all.items().begin();
    const Expression key = String({{"pattern", item.key()}}, place.Inner("patternProperties"));
    return FreeMembers(schema, *key, item.value(), place);
  }
  if (schema.contains("propertyNames")) {
    if (named) {
      RefuseKeyword(place.path, "propertyNames", "not together with properties or required");
    }
    Json names = schema["propertyNames"];
    if (names.is_object() && !names.contains("type") && !names.contains("enum") &&
        !names.contains("const")) {
      names["type"] = "string";
    }
    const bool text =
        names.is_boolean() || (names.is_object() && (names.value("type", Json()) == "string"));
    if (!text) {
      RefuseKeyword(place.path, "propertyNames",
                    "expected a schema of strings, without enum and const");
    }
    if (names == true) return FreeMembers(schema, "string", rest, place);
    const Expression key = Value(names, place.Inner("propertyNames"));
    return FreeMembers(schema, key.value_or(""), key ? rest : Json(false), place);
  }
  return named ? Members(schema, place) : FreeMembers(schema, "string", rest, place);
}

// Members in the order of `properties`, then what is required without being named there, then
// others.
Expression SchemaConverter::Members(const Json& schema, const Place& place) {
  const char* rest_name =
      schema.contains("additionalProperties") ? "additionalProperties" : "unevaluatedProperties";
  const Expression rest = schema.contains(rest_name)
                              ? Value(schema[rest_name], place.Inner(rest_name))
                              : Expression("value");
  struct Member {
    std::string name;
    Expression value;
    bool required = false;
  };
  std::vector<Member> members;
  const Json properties = schema.value("properties", Json::object());
  for (const auto& [name, value] : properties.items()) {
    members.push_back({name, Value(value, place.Inner("properties/" + name))});
  }
  const Json required = schema.value("required", Json::array());
  if (!required.is_array()) RefuseKeyword(place.path, "required", "expected a list of names");
  for (const Json& name : required) {
    if (!name.is_string()) RefuseKeyword(place.path, "required", "expected a list of names");
    auto found = std::find_if(members.begin(), members.end(), [&](const Member& member) {
      return member.name == name.get<std::string>();
    });
    if (found == members.end()) {
      found = members.insert(members.end(), {name.get<std::string>(), rest});
    }
    found->required = true;
  }
  std::vector<std::string> names;
  int64_t num_required = 0, num_possible = 0;
  for (const Member& member : members) {
    names.push_back(member.name);
    num_required += member.required ? 1 : 0;
    num_possible += member.value ? 1 : 0;
    if (member.required && !member.value) return std::nullopt;
  }
  const int64_t least = Count(schema, "minProperties", 0, place),
                most = Count(schema, "maxProperties", -1, place);
  if (most >= 0 && (rest || most < num_possible)) {
    RefuseKeyword(place.path, "maxProperties",
                  "not together with properties, unless all of them fit and no others are allowed");
  }
  if (least > std::max<int64_t>(num_required, 1)) {
    RefuseKeyword(place.path, "minProperties",
                  "more than 1 is not supported without as many required properties");
  }

  // first[k]: what may come from member k on while nothing was written; later: once something was.
  const std::string other = rest ? NewRule(KeyOtherThan(names) + " ws \":\" ws " + *rest) : "";
  std::string later = rest ? NewRule("ws \",\" ws " + other) + "*" : "";
  Expression first = rest ? Expression(other + " " + later) : std::nullopt;
  // Behind the first that is required something was written: what follows is one sequence, and no
  // rules of its own, because what the library keeps grows with rules times states.
  const auto required_at = std::find_if(members.begin(), members.end(),
                                        [](const Member& member) { return member.required; });
  for (size_t k = members.size(); k-- > 0;) {
    const Member& member = members[k];
    if (!member.value) continue;
    const std::string text = Key(member.name) + " " + *member.value;
    if (members.begin() + static_cast<std::ptrdiff_t>(k) > required_at) {
      const std::string more = "ws \",\" ws " + text;
      later = (member.required ? more : "(" + more + ")?") + " " + later;
      continue;
    }
    if (k > 0 && member.required && !later.empty()) later = NewRule(later);  // used twice
    const std::string pair = NewRule(text);
    const std::string begin = pair + " " + later;
    if (!first || member.required) {
      first = begin;
    } else {
      first = NewRule(begin + " | " + *first);
    }
    if (k == 0) break;
    const std::string more = "ws \",\" ws " + pair + " " + later;
    later = NewRule(member.required ? more
                                    : fmt::format("{} | {}", more, later.empty() ? "\"\"" : later));
  }
  const bool empty = num_required == 0 && least == 0;
  if (!first) return empty ? Expression("\"{\" ws \"}\"") : std::nullopt;
  const std::string some = fmt::format("\"{{\" ws ({}) ws \"}}\"", *first);
  return NewRule(empty ? some + " | \"{\" ws \"}\"" : some);
}

}  // namespace

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
