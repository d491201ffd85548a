// Numbers between bounds as expressions of a grammar (grammar/ebnf.h). Numbers are spelled in plain
// decimals:
// no exponent, no plus sign, no leading zeros, no minus before nothing but zeros.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace bakestone::grammar {

struct IntegerRange {
  std::optional<int64_t> least, most;
};
// Empty text: there is no such integer.
std::string IntegerBetween(const IntegerRange& range);

// A bound in decimals as it is written: "-0.5", "120". Without exponent.
struct Bound {
  std::string decimals;
  bool inclusive = true;
};
struct NumberRange {
  std::optional<Bound> least, most;
};
// Numbers with a fraction, too. Empty text: there is no such number.
std::string NumberBetween(const NumberRange& range);

// Whole multiples of a divisor of at least 1, as rules that the caller names: a rule's name for
// each remainder is prefix and the remainder; the expression refers to them.
struct Multiples {
  std::string expression, rules;
};
Multiples MultiplesOf(int64_t divisor, const std::string& prefix);

}  // namespace bakestone::grammar
