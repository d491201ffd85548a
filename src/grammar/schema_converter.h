// Schemas turned into rules, one after the other: json_schema.cc has what is said about values of
// any type, strings and numbers, schema_containers.cc objects and arrays. Internal to grammar/.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/schema_merge.h"

namespace bakestone::grammar {

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

}  // namespace bakestone::grammar
