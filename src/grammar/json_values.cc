#include "grammar/json_values.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "grammar/ebnf.h"
#include "text/utf8.h"

namespace bakestone::grammar {
namespace {

constexpr int64_t kLargestExact = int64_t{1} << 53;

std::string Decimals(const Json& value, const char* keyword, const std::string& place) {
  if (!value.is_number()) RefuseKeyword(place, keyword, "expected a number");
  if (value.is_number_integer()) return value.dump();
  const double number = value.get<double>();
  if (std::trunc(number) == number && std::fabs(number) <= static_cast<double>(kLargestExact)) {
    return fmt::format("{}", static_cast<int64_t>(number));
  }
  const std::string text = fmt::format("{}", number);
  if (text.find_first_of("en") != std::string::npos) {
    RefuseKeyword(place, keyword, fmt::format("{} is too large or too fine to be honoured", text));
  }
  return text;
}

// A whole number at least (up) or at most the bound.
int64_t WholeBound(const Bound& bound, bool up, const char* keyword, const std::string& place) {
  const size_t point = bound.decimals.find('.');
  const std::string whole = bound.decimals.substr(0, point);
  if (whole.size() > 18) {
    RefuseKeyword(place, keyword, fmt::format("{} is too large to be honoured", bound.decimals));
  }
  int64_t value = std::stoll(whole);
  const bool negative = bound.decimals[0] == '-';
  if (point == std::string::npos) return bound.inclusive ? value : value + (up ? 1 : -1);
  if (up && !negative) ++value;
  if (!up && negative) --value;
  return value;
}

int CompareBounds(const std::string& a, const std::string& b) {
  const double x = std::stod(a), y = std::stod(b);
  return x < y ? -1 : x > y ? 1 : 0;
}

struct Trie {
  bool ends = false;
  std::map<uint32_t, std::unique_ptr<Trie>> next;
};

CodepointSet CanonicalCharacters() { return CodepointSet::All(); }

std::string TrieRest(const Trie& node, const std::string& rest,
                     const std::function<std::string(const std::string&)>& new_rule) {
  std::vector<std::string> choices;
  if (!node.ends) choices.push_back("\"\\\"\"");
  CodepointSet others = CanonicalCharacters();
  for (const auto& [codepoint, child] : node.next) {
    const CodepointSet one({{codepoint, codepoint}});
    others = others.Minus(one);
    choices.push_back(JsonOneOf(one) + " " + TrieRest(*child, rest, new_rule));
  }
  choices.push_back(JsonOneOf(others) + " " + rest);
  return new_rule(fmt::format("{}", fmt::join(choices, " | ")));
}

}  // namespace

const char* JsonValueRules() {
  return R"(value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (member (ws "," ws member)* ws)? "}"
member ::= string ws ":" ws value
array ::= "[" ws (value (ws "," ws value)* ws)? "]"
string ::= "\"" [^"\\\x00-\x1f]* string-end
string-end ::= "\"" | "\\" escape [^"\\\x00-\x1f]* string-end
character ::= [^"\\\x00-\x1f] | "\\" escape
escape ::= ["\\/bfnrt] | "u" code-unit
code-unit ::= [0-9A-CEFa-cef] hex hex hex | [Dd] [0-7] hex hex | [Dd] [89ABab] hex hex "\\u" [Dd] [C-Fc-f] hex hex
hex ::= [0-9A-Fa-f]
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([Ee] [+\-]? [0-9] [0-9]? [0-9]?)?
integer ::= "0" | "-"? [1-9] [0-9]*
ws ::= "" | " " | "\n" [ \t]{0,32}
)";
}

std::string ValueLiteral(const Json& value) {
  std::vector<std::string> parts;
  if (value.is_object()) {
    for (const auto& [name, member] : value.items()) {
      parts.push_back(fmt::format("\"\\\"\" {} \"\\\"\" ws \":\" ws {}", JsonLiteral(name),
                                  ValueLiteral(member)));
    }
    return fmt::format(
        "\"{{\" ws {} \"}}\"",
        parts.empty() ? "" : fmt::format("{} ws", fmt::join(parts, " ws \",\" ws ")));
  }
  if (value.is_array()) {
    for (const Json& item : value) parts.push_back(ValueLiteral(item));
    return fmt::format(
        "\"[\" ws {} \"]\"",
        parts.empty() ? "" : fmt::format("{} ws", fmt::join(parts, " ws \",\" ws ")));
  }
  if (value.is_string()) return "\"\\\"\" " + JsonLiteral(value.get<std::string>()) + " \"\\\"\"";
  if (HasType(value, "integer") && value.is_number_float() &&
      std::fabs(value.get<double>()) <= static_cast<double>(kLargestExact)) {
    return Literal(fmt::format("{}", static_cast<int64_t>(value.get<double>())));
  }
  return Literal(value.dump());
}

const char* FormatPattern(const std::string& format) {
#define BAKESTONE_DATE                                                                           \
  "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|" \
  "1\\d|2[0-8]))"                                                                                \
  "|(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
#define BAKESTONE_TIME \
  "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
  static const std::map<std::string, const char*> kPatterns = {
      {"date", BAKESTONE_DATE},
      {"time", BAKESTONE_TIME},
      {"date-time", BAKESTONE_DATE "T" BAKESTONE_TIME},
      {"uuid", "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"},
      {"ipv4",
       "((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"},
  };
#undef BAKESTONE_TIME
#undef BAKESTONE_DATE
  const auto found = kPatterns.find(format);
  return found == kPatterns.end() ? nullptr : found->second;
}

std::string TextOtherThan(const std::vector<std::string>& texts,
                          const std::function<std::string(const std::string& body)>& new_rule) {
  Trie root;
  for (const std::string& text : texts) {
    Trie* node = &root;
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      uint32_t codepoint = 0;
      const int length = DecodeUtf8(p, end, &codepoint);
      if (length == 0) Throw(ErrorCode::kInvalidArgument, "expected UTF-8 in a property's name");
      std::unique_ptr<Trie>& next = node->next[codepoint];
      if (!next) next = std::make_unique<Trie>();
      node = next.get();
      p += length;
    }
    node->ends = true;
  }
  const std::string rest = new_rule(JsonOneOf(CanonicalCharacters()) + "* \"\\\"\"");
  return TrieRest(root, rest, new_rule);
}

NumberBounds ReadBounds(const Json& schema, const std::string& place) {
  NumberBounds bounds;
  const auto read = [&](const char* keyword, bool inclusive, bool least) {
    if (!schema.contains(keyword)) return;
    const Bound bound{Decimals(schema[keyword], keyword, place), inclusive};
    std::optional<Bound>& into = least ? bounds.range.least : bounds.range.most;
    const int order = into ? CompareBounds(bound.decimals, into->decimals) : 0;
    if (!into || (least ? order > 0 : order < 0) || (order == 0 && !inclusive)) into = bound;
  };
  read("minimum", true, true);
  read("exclusiveMinimum", false, true);
  read("maximum", true, false);
  read("exclusiveMaximum", false, false);
  if (schema.contains("multipleOf")) {
    bounds.multiple_of = Decimals(schema["multipleOf"], "multipleOf", place);
    if (std::stod(*bounds.multiple_of) <= 0) {
      RefuseKeyword(place, "multipleOf", "expected a number greater than 0");
    }
  }
  return bounds;
}

std::string IntegerExpression(NumberBounds& bounds, const std::string& rule_prefix,
                              const std::string& place) {
  IntegerRange range;
  if (bounds.range.least) range.least = WholeBound(*bounds.range.least, true, "minimum", place);
  if (bounds.range.most) range.most = WholeBound(*bounds.range.most, false, "maximum", place);
  if (range.least && range.most && *range.least > *range.most) return "";
  if (!bounds.multiple_of || *bounds.multiple_of == "1") {
    return range.least || range.most ? IntegerBetween(range) : "integer";
  }
  constexpr int64_t kMaxDivisor = 128, kMaxValues = 1000;
  if (bounds.multiple_of->find('.') != std::string::npos || bounds.multiple_of->size() > 12) {
    RefuseKeyword(place, "multipleOf", "only whole numbers are supported for integers");
  }
  const int64_t divisor = std::stoll(*bounds.multiple_of);
  if (range.least && range.most) {
    const auto floor_div = [&](int64_t value) {
      return value >= 0 ? value / divisor : -((-value + divisor - 1) / divisor);
    };
    const int64_t first = -floor_div(-*range.least), last = floor_div(*range.most);
    if (last - first >= kMaxValues) {
      RefuseKeyword(place, "multipleOf",
                    fmt::format("more than {} values are between the bounds", kMaxValues));
    }
    std::vector<std::string> values;
    for (int64_t i = first; i <= last; ++i) values.push_back(fmt::format("\"{}\"", i * divisor));
    return values.empty() ? "" : Alternatives(values);
  }
  if (range.least || range.most) {
    RefuseKeyword(place, "multipleOf",
                  "with one bound only it is not supported: give both or none");
  }
  if (divisor > kMaxDivisor) {
    RefuseKeyword(place, "multipleOf",
                  fmt::format("more than {} is not supported without bounds", kMaxDivisor));
  }
  Multiples multiples = MultiplesOf(divisor, rule_prefix);
  bounds.rules = std::move(multiples.rules);
  return multiples.expression;
}

std::string NumberExpression(const NumberBounds& bounds, const std::string& place) {
  if (bounds.multiple_of) {
    // Powers of ten say how many digits there are behind the point.
    const std::string& step = *bounds.multiple_of;
    const bool unit =
        step == "1" || (step.starts_with("0.") &&
                        step.find_first_not_of('0', 2) == step.size() - 1 && step.back() == '1');
    if (!unit || bounds.range.least || bounds.range.most) {
      RefuseKeyword(place, "multipleOf",
                    "for numbers only 1, 0.1, 0.01 and so on are supported, without bounds");
    }
    const std::string whole = "\"-\"? (\"0\" | [1-9] [0-9]*)";
    return step == "1" ? "(" + whole + ")"
                       : fmt::format("({} (\".\" [0-9]{{1,{}}})?)", whole, step.size() - 2);
  }
  const auto& [least, most] = bounds.range;
  if (!least && !most) return "number";
  if (least && most) {
    const int order = CompareBounds(least->decimals, most->decimals);
    if (order > 0 || (order == 0 && !(least->inclusive && most->inclusive))) return "";
  }
  return NumberBetween(bounds.range);
}

}  // namespace bakestone::grammar
