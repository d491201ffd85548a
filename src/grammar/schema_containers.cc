// The objects and arrays that a schema allows.
#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "grammar/ebnf.h"
#include "grammar/json_values.h"
#include "grammar/schema_converter.h"

namespace bakestone::grammar {

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

}  // namespace bakestone::grammar
