// Pieces of grammars as text, in the EBNF that the grammar library reads:
//
//   rule ::= "text" [a-z\u0020] other_rule (a | b) x{2,5} y* ""
//
// Everything here returns expressions that stand for themselves: they may be put beside one another
// and repeated without parentheses. Sets are of Unicode scalar values; what is written is UTF-8 or,
// in a JSON string, its canonical spelling. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bakestone::grammar {

inline constexpr uint32_t kLastCodepoint = 0x10FFFF;

// Sorted ranges, both ends in it, that neither overlap nor touch.
class CodepointSet {
 public:
  CodepointSet() = default;
  CodepointSet(std::initializer_list<std::pair<uint32_t, uint32_t>> ranges);
  static CodepointSet All();  // without surrogates

  void Add(uint32_t first, uint32_t last);
  void Add(const CodepointSet& other);
  CodepointSet Complement() const;  // without surrogates
  CodepointSet Minus(const CodepointSet& other) const;
  bool Contains(uint32_t codepoint) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<std::pair<uint32_t, uint32_t>>& ranges() const { return ranges_; }

 private:
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

std::string Literal(std::string_view utf8);  // of text as it is
std::string JsonLiteral(
    std::string_view utf8);  // of text as it is spelled inside a JSON string, without quotes
std::string OneOf(const CodepointSet& set);  // one character of a set that is not empty
std::string JsonOneOf(
    const CodepointSet& set);  // one character of it, as spelled inside a JSON string
std::string Alternatives(const std::vector<std::string>& expressions);  // at least one
// {least, most}; most < 0: no limit.
std::string Repeat(const std::string& expression, int64_t least, int64_t most);
// The same of a rule whose name ends with "character", as grammar/bounded_mask.h knows it.
std::string Counted(const std::string& rule, int64_t least, int64_t most);

}  // namespace bakestone::grammar
