// What schemas say together: the parts of JSON Schema that say "and" ($ref beside other keywords,
// allOf) become one schema, and oneOf is proved to be anyOf. Internal to grammar/. Pure functions;
// they throw kInvalidArgument naming keyword and place where it cannot be done.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace bakestone::grammar {

using Json = nlohmann::ordered_json;

[[noreturn]] void RefuseKeyword(const std::string& place, std::string_view keyword,
                                std::string_view why);

bool IsAnnotation(std::string_view keyword);

// The part of root that a reference ("#", "#/$defs/a~1b") stands for. place: where it is written.
const Json& Resolve(const Json& root, const std::string& reference, const std::string& place);

// A schema of what satisfies both; annotations of part are left out. Both are objects; outer is the
// one that part lies in.
Json Merge(const Json& outer, const Json& part, const std::string& place);

// Throws unless no value can satisfy two of the options.
void ProveDisjoint(const Json& root, const Json& options, const std::string& place);

// "integer" is a number, too.
bool HasType(const Json& value, std::string_view type);

}  // namespace bakestone::grammar
