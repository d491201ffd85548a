#include "grammar/call_arguments.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "grammar/calls.h"
#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/json_values.h"
#include "grammar/regex.h"
#include "text/dialog/call_values.h"
#include "text/utf8.h"

namespace bakestone::grammar {
namespace {

constexpr int64_t kMaxPlainCharacters = 100'000;

// A string that is written as it is.
class PlainString {
 public:
  PlainString(const Json& schema, std::string place, const std::string& end)
      : schema_(schema), place_(std::move(place)), end_(end) {}

  // counted: a name for a rule, which goes into *rules where characters are counted.
  std::string Expression(const std::string& counted, std::string* rules) const {
    const bool listed = schema_.contains("enum") || schema_.contains("const");
    for (const auto& [keyword, value] : schema_.items()) {
      const bool known =
          keyword == "type" || keyword == "enum" || keyword == "const" || IsAnnotation(keyword) ||
          (!listed && (keyword == "minLength" || keyword == "maxLength" || keyword == "format"));
      if (!known) {
        RefuseKeyword(place_, keyword,
                      "not supported for a text in the way in which this model writes calls");
      }
    }
    if (listed) return Listed();
    const int64_t least = Length("minLength", 0), most = Length("maxLength", -1);
    if (schema_.contains("format")) {
      const char* pattern = schema_["format"].is_string()
                                ? FormatPattern(schema_["format"].get<std::string>())
                                : nullptr;
      if (!pattern) {
        RefuseKeyword(place_, "format", "only date, time, date-time, uuid and ipv4 are supported");
      }
      if (least > 0 || most >= 0) {
        RefuseKeyword(place_, "format", "not together with minLength or maxLength");
      }
      return FromRegex(pattern, {});
    }
    if (least == 0 && most < 0) return "text";
    if (most >= 0 && least > most) RefuseKeyword(place_, "maxLength", "less than minLength");
    // A counted text does without the character that its end begins with.
    CodepointSet characters = CodepointSet::All().Minus({{0, 8}, {11, 12}, {14, 31}});
    uint32_t first = 0;
    if (DecodeUtf8(end_.data(), end_.data() + end_.size(), &first) > 0) {
      characters = characters.Minus({{first, first}});
    }
    *rules += fmt::format("{} ::= {}\n", counted, OneOf(characters));
    return Counted(counted, least, most);
  }

 private:
  std::string Listed() const {
    if (schema_.contains("enum") && schema_.contains("const")) {
      RefuseKeyword(place_, "const", "not together with enum");
    }
    const Json values =
        schema_.contains("const") ? Json::array({schema_["const"]}) : schema_["enum"];
    std::vector<std::string> choices;
    for (const Json& value : values.is_array() ? values : Json::array()) {
      if (!value.is_string()) continue;
      const std::string text = value.get<std::string>();
      const bool writable = (end_.empty() || text.find(end_) == std::string::npos) &&
                            text.find(kMarkerByte) == std::string::npos;
      if (writable) choices.push_back(Literal(text));
    }
    if (choices.empty()) {
      RefuseKeyword(place_, schema_.contains("const") ? "const" : "enum",
                    "expected texts that this model can write in a call");
    }
    return Alternatives(choices);
  }
  int64_t Length(const char* keyword, int64_t otherwise) const {
    if (!schema_.contains(keyword)) return otherwise;
    const Json& value = schema_[keyword];
    if (!HasType(value, "integer") || value.get<double>() < 0 ||
        value.get<double>() > static_cast<double>(kMaxPlainCharacters)) {
      RefuseKeyword(place_, keyword,
                    fmt::format("expected a whole number from 0 to {}", kMaxPlainCharacters));
    }
    return static_cast<int64_t>(value.get<double>());
  }

  const Json& schema_;
  const std::string place_;
  const std::string& end_;
};

bool CanBeNamed(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), dialog::IsNameChar);
}

class NamedMembers {
 public:
  NamedMembers(const Json& schema, const ArgumentSyntax& syntax, std::string prefix)
      : schema_(schema), syntax_(syntax), prefix_(std::move(prefix)) {}

  ArgumentRules Write() {
    CheckKeywords();
    if (schema_.contains("properties")) {
      for (const auto& [name, value] : schema_["properties"].items()) AddMember(name, value);
    }
    for (const Json& name : schema_.value("required", Json::array())) {
      if (!name.is_string()) RefuseKeyword("#", "required", "expected a list of names");
      Require(name.get<std::string>());
    }
    WriteValues();
    return {Sequence(), std::move(rules_)};
  }

 private:
  struct Member {
    std::string name;
    const Json* schema = nullptr;  // null: any value
    bool required = false;
    std::string value = {};
  };

  void CheckKeywords() const {
    for (const auto& [keyword, value] : schema_.items()) {
      const bool closed = keyword == "additionalProperties" || keyword == "unevaluatedProperties";
      const bool known = keyword == "type" || keyword == "properties" || keyword == "required" ||
                         keyword == "$id" || closed || IsAnnotation(keyword);
      if (!known) {
        RefuseKeyword(
            "#", keyword,
            "not supported for all arguments together in the way in which this model writes calls");
      }
      if (keyword == "properties" && !value.is_object()) {
        RefuseKeyword("#", keyword, "expected an object of schemas");
      }
      if (keyword == "required" && !value.is_array()) {
        RefuseKeyword("#", keyword, "expected a list of names");
      }
    }
  }
  void AddMember(const std::string& name, const Json& schema) {
    if (CanBeNamed(name) && schema != false) members_.push_back({name, &schema});
  }
  void Require(const std::string& name) {
    const auto found = std::find_if(members_.begin(), members_.end(),
                                    [&](const Member& member) { return member.name == name; });
    if (found != members_.end()) {
      found->required = true;
      return;
    }
    const bool listed = schema_.contains("properties") && schema_["properties"].contains(name);
    const Json others = schema_.value("additionalProperties", Json(true));
    if (listed || !CanBeNamed(name) || others != true) {
      RefuseKeyword("#", "required",
                    fmt::format("{} is a name or a value that this model cannot write in a call",
                                Quote(name)));
    }
    members_.push_back({name, nullptr, true});
  }
  void WriteValues() {
    std::vector<std::string> pointers;
    const auto plain = [&](const Member& member) {
      return syntax_.plain_strings && member.schema && member.schema->is_object() &&
             dialog::IsStringOnly(*member.schema);
    };
    for (Member& member : members_) {
      const std::string place = "#/properties/" + member.name;
      if (plain(member)) {
        const std::string quote = SyntaxPiece(syntax_.quote),
                          counted = fmt::format("{}m{}character", prefix_, num_rules_++);
        member.value = fmt::format(
            "{} {} {}", quote,
            PlainString(*member.schema, place, syntax_.text_end).Expression(counted, &rules_),
            quote);
      } else if (member.schema) {
        pointers.push_back(place);
      } else {
        member.value = "value";
      }
    }
    SchemaRules values = RulesOfSchema(schema_, pointers, prefix_);
    rules_ += values.rules;
    auto next = values.starts.begin();
    for (Member& member : members_) {
      if (member.value.empty()) member.value = *next++;
    }
  }
  std::string NewRule(const std::string& body) {
    const std::string name = fmt::format("{}m{}", prefix_, num_rules_++);
    rules_ += name + " ::= " + body + "\n";
    return name;
  }
  // first: what may come from a member on while none was written; later: once one was. Behind the
  // first that is required one was: then it is one sequence.
  std::string Sequence() {
    const auto required_at = std::find_if(members_.begin(), members_.end(),
                                          [](const Member& member) { return member.required; });
    const std::string comma = SyntaxPiece(syntax_.comma);
    std::optional<std::string> first;
    std::string later = "\"\"";
    for (size_t k = members_.size(); k-- > 0;) {
      const Member& member = members_[k];
      const std::string pair =
          fmt::format("{} {} {} {} {}", SyntaxPiece(syntax_.key_begin), Literal(member.name),
                      SyntaxPiece(syntax_.key_end), member.value, SyntaxPiece(syntax_.value_end));
      if (members_.begin() + static_cast<std::ptrdiff_t>(k) > required_at) {
        const std::string more = comma + " " + pair;
        later = (member.required ? more : "(" + more + ")?") + " " + later;
        continue;
      }
      later = NewRule(later);
      const std::string one = NewRule(pair);
      first = NewRule(!first || member.required ? one + " " + later
                                                : fmt::format("{} {} | {}", one, later, *first));
      later = fmt::format("{} {} {}", comma, one, later) + (member.required ? "" : " | " + later);
    }
    if (!first) return "\"\"";
    return required_at != members_.end() ? *first : fmt::format("({} | \"\")", *first);
  }

  const Json& schema_;
  const ArgumentSyntax& syntax_;
  const std::string prefix_;
  std::vector<Member> members_;
  std::string rules_;
  size_t num_rules_ = 0;
};

}  // namespace

Json ObjectSchema(const Json& parameters) {
  if (parameters.is_null() || parameters == true) return {{"type", "object"}};
  if (!parameters.is_object()) {
    Throw(ErrorCode::kInvalidArgument, "the schema at '#': expected an object, found {}",
          parameters.type_name());
  }
  Json schema = parameters;
  if (schema.contains("type")) {
    const Json& type = schema["type"];
    const bool object = type == "object" || (type.is_array() && std::find(type.begin(), type.end(),
                                                                          "object") != type.end());
    if (!object) RefuseKeyword("#", "type", "expected object: arguments are one");
  }
  schema["type"] = "object";
  return schema;
}

ArgumentRules JsonArguments(const Json& schema, bool strict, const std::string& prefix) {
  if (!strict) return {"object", ""};
  SchemaRules rules = RulesOfSchema(schema, {"#"}, prefix);
  return {std::move(rules.starts[0]), std::move(rules.rules)};
}

ArgumentRules NamedArguments(const Json& schema, bool strict, const ArgumentSyntax& syntax,
                             const std::string& prefix) {
  if (strict) return NamedMembers(schema, syntax, prefix).Write();
  const std::string quoted = SyntaxPiece(syntax.quote) + " text " + SyntaxPiece(syntax.quote);
  const std::string value = !syntax.plain_strings  ? "value"
                            : syntax.quote.empty() ? "text"
                                                   : "(" + quoted + " | value)";
  const std::string member = prefix + "member";
  ArgumentRules any{fmt::format("({} ({} {})* | \"\")", member, SyntaxPiece(syntax.comma), member),
                    ""};
  any.rules = fmt::format("{} ::= {} [a-zA-Z0-9_.\\-]{{1,64}} {} {} {}\n", member,
                          SyntaxPiece(syntax.key_begin), SyntaxPiece(syntax.key_end), value,
                          SyntaxPiece(syntax.value_end));
  return any;
}

std::string SyntaxPiece(const std::string& text) {
  std::string expression;
  for (size_t at = 0; at < text.size();) {
    if (!expression.empty()) expression += " ";
    if (text[at] == '\x01' || text[at] == '\x02') {
      expression += text[at] == '\x01' ? "[a-zA-Z0-9_\\-]{1,40}" : "[0-9]{1,3}";
      ++at;
      continue;
    }
    const size_t end = std::min(text.find_first_of("\x01\x02", at), text.size());
    expression += Literal(std::string_view(text).substr(at, end - at));
    at = end;
  }
  return expression.empty() ? "\"\"" : expression;
}

std::string PlainTextWithout(const std::string& end) {
  return fmt::format("TagDispatch(loop_after_dispatch=false, excludes=({}{}))",
                     end.empty() ? "" : Literal(end) + ", ", Literal(std::string(1, kMarkerByte)));
}

}  // namespace bakestone::grammar
