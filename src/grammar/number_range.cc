#include "grammar/number_range.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "grammar/ebnf.h"

namespace bakestone::grammar {
namespace {

using Choices = std::vector<std::string>;

constexpr const char* kDigit = "[0-9]";

std::string Digits(size_t count) {
  return Repeat(kDigit, static_cast<int64_t>(count), static_cast<int64_t>(count));
}
std::string DigitFrom(char first, char last) { return fmt::format("[{}-{}]", first, last); }

// Texts of digits as long as both, from low to high, which are of one length.
void SameLength(const std::string& prefix, const std::string& low, const std::string& high,
                Choices* choices) {
  const auto all = [](const std::string& text, char digit) {
    return text.find_first_not_of(digit) == std::string::npos;
  };
  if (low.empty()) return choices->push_back(Literal(prefix));
  if (all(low, '0') && all(high, '9')) {
    return choices->push_back(Literal(prefix) + " " + Digits(low.size()));
  }
  if (low[0] == high[0]) return SameLength(prefix + low[0], low.substr(1), high.substr(1), choices);
  const size_t rest = low.size() - 1;
  char first = low[0], last = high[0];
  if (!all(low.substr(1), '0')) {
    SameLength(prefix + first, low.substr(1), std::string(rest, '9'), choices);
    ++first;
  }
  const bool high_apart = !all(high.substr(1), '9');
  if (high_apart) --last;
  if (first <= last) {
    choices->push_back(Literal(prefix) + " " + DigitFrom(first, last) + " " + Digits(rest));
  }
  if (high_apart) SameLength(prefix + high[0], std::string(rest, '0'), high.substr(1), choices);
}

// Whole numbers without a sign; most empty: no limit.
void WholeBetween(const std::string& least, const std::string& most, Choices* choices) {
  const size_t longest = most.empty() ? least.size() : most.size();
  for (size_t length = least.size(); length <= longest; ++length) {
    const std::string low = length == least.size() ? least : "1" + std::string(length - 1, '0');
    const std::string high = length == most.size() ? most : std::string(length, '9');
    if (low <= high) SameLength("", low, high, choices);
  }
  if (most.empty()) {
    choices->push_back(fmt::format("[1-9] {}", Repeat(kDigit, static_cast<int64_t>(longest), -1)));
  }
}

// A number without its sign, zeros that mean nothing taken away.
struct Decimal {
  std::string whole = "0", fraction;
  bool zero() const { return whole == "0" && fraction.empty(); }
};

Decimal Magnitude(std::string text) {
  if (!text.empty() && text[0] == '-') text.erase(0, 1);
  Decimal result;
  const size_t point = text.find('.');
  result.whole = text.substr(0, point);
  if (point != std::string::npos) result.fraction = text.substr(point + 1);
  result.fraction.erase(result.fraction.find_last_not_of('0') + 1);
  result.whole.erase(0, std::min(result.whole.find_first_not_of('0'), result.whole.size() - 1));
  return result;
}

std::string Next(std::string whole) {
  for (size_t i = whole.size(); i-- > 0;) {
    if (whole[i] != '9') {
      ++whole[i];
      return whole;
    }
    whole[i] = '0';
  }
  return "1" + whole;
}

bool LessWhole(const std::string& a, const std::string& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

struct Edge {
  Decimal value;
  bool inclusive = true;
};

// What may follow the whole part of a number that shares it with the edges: fractions at least low
// and at most high. Both null: any fraction.
void Fractions(const std::string& whole, const Edge* low, const Edge* high, Choices* choices) {
  const std::string from = low ? low->value.fraction : "";
  const std::string to = high ? high->value.fraction : "";
  const bool limited = high != nullptr;
  const size_t length = std::max(from.size(), to.size());
  const auto padded = [&](const std::string& text) {
    return text + std::string(length - text.size(), '0');
  };
  const std::string least = padded(from), most = limited ? padded(to) : std::string(length, '9');
  const std::string head = Literal(whole);
  // Nothing after the whole part, or only zeros: the fraction 0.
  const auto allowed =
      [&](const std::string& text,
          bool more) {  // text as long as the edges; more: other digits than 0 follow
        if (low && (text < least || (text == least && !low->inclusive && !more))) return false;
        if (limited && (text > most || (text == most && (more || !high->inclusive)))) return false;
        return true;
      };
  const std::string none(length, '0');
  if (allowed(none, false)) choices->push_back(head + " (\".\" [0]+)?");
  if (length == 0) {
    if (allowed("", true)) choices->push_back(head + " \".\" [0-9]* [1-9] [0-9]*");
    return;
  }
  // Walks the digits: where a text has left both edges, the rest is free.
  struct Walk {
    const std::string &least, &most;
    bool low, limited, low_inclusive, high_inclusive;
    Choices* out;
    std::string head;
    void Go(const std::string& text, bool on_low, bool on_high) const {
      const size_t i = text.size();
      const std::string start = head + " " + Literal("." + text);
      if (i == least.size()) {
        const bool nonzero = text.find_first_not_of('0') != std::string::npos;
        if (!on_low && !on_high) return out->push_back(start + " [0-9]*");
        const bool even = (!on_low || low_inclusive) && (!on_high || high_inclusive);
        if (even && nonzero) out->push_back(start + " [0]*");
        if (!on_high) out->push_back(start + " [0-9]* [1-9] [0-9]*");
        return;
      }
      // The text may end here where zeros from here on are within the edges, and it is not all
      // zeros.
      if (!text.empty() && text.find_first_not_of('0') != std::string::npos) {
        const std::string rest(least.size() - i, '0');
        const std::string whole_text = text + rest;
        const bool low_ok = !low || whole_text > least || (whole_text == least && low_inclusive);
        const bool high_ok =
            !limited || whole_text < most || (whole_text == most && high_inclusive);
        if (low_ok && high_ok) out->push_back(start);
      }
      char first = on_low ? least[i] : '0', last = on_high ? most[i] : '9';
      if (first > last) return;
      if (on_low) Go(text + first, true, on_high && first == last);
      if (on_high && !(on_low && first == last)) Go(text + last, false, true);
      if (on_low) ++first;
      if (on_high) --last;
      if (first <= last) out->push_back(start + " " + DigitFrom(first, last) + " [0-9]*");
    }
  };
  const Walk walk{
      least,   most, low != nullptr, limited, !low || low->inclusive, !limited || high->inclusive,
      choices, head};
  walk.Go("", low != nullptr, limited);
}

// Numbers without a sign.
void PositiveBetween(const Edge& low, const Edge* high, Choices* choices) {
  if (high) {
    if (LessWhole(high->value.whole, low.value.whole)) return;
    if (high->value.whole == low.value.whole) {
      const auto pad = std::max(low.value.fraction.size(), high->value.fraction.size());
      const auto padded = [&](const Decimal& value) {
        return value.fraction + std::string(pad - value.fraction.size(), '0');
      };
      const std::string a = padded(low.value), b = padded(high->value);
      if (b < a || (a == b && !(low.inclusive && high->inclusive))) return;
      return Fractions(low.value.whole, &low, high, choices);
    }
  }
  Fractions(low.value.whole, &low, nullptr, choices);
  const std::string next = Next(low.value.whole);
  if (!high) {
    Choices whole;
    WholeBetween(next, "", &whole);
    choices->push_back(Alternatives(whole) + " (\".\" [0-9]+)?");
    return;
  }
  if (LessWhole(next, high->value.whole)) {
    std::string before = high->value.whole;  // minus one; it is at least 2
    size_t i = before.size();
    while (before[--i] == '0') before[i] = '9';
    --before[i];
    if (before[0] == '0' && before.size() > 1) before.erase(0, 1);
    Choices whole;
    WholeBetween(next, before, &whole);
    choices->push_back(Alternatives(whole) + " (\".\" [0-9]+)?");
  }
  Fractions(high->value.whole, nullptr, high, choices);
}

std::string MagnitudeOf(int64_t value) {
  const std::string text = fmt::format("{}", value);
  return value < 0 ? text.substr(1) : text;
}

}  // namespace

std::string IntegerBetween(const IntegerRange& range) {
  Choices choices;
  if (!range.least || *range.least < 0) {  // with a minus: the bounds change places
    if (!range.most || *range.most < 0) {
      Choices magnitudes;
      WholeBetween(range.most ? MagnitudeOf(*range.most) : "1",
                   range.least ? MagnitudeOf(*range.least) : "", &magnitudes);
      if (!magnitudes.empty()) choices.push_back("\"-\" " + Alternatives(magnitudes));
    } else {
      Choices magnitudes;
      WholeBetween("1", range.least ? MagnitudeOf(*range.least) : "", &magnitudes);
      if (!magnitudes.empty()) choices.push_back("\"-\" " + Alternatives(magnitudes));
    }
  }
  if (!range.most || *range.most >= 0) {
    Choices magnitudes;
    const std::string least = range.least && *range.least > 0 ? MagnitudeOf(*range.least) : "0";
    if (!range.most || !LessWhole(MagnitudeOf(*range.most), least)) {
      WholeBetween(least, range.most ? MagnitudeOf(*range.most) : "", &magnitudes);
    }
    if (!magnitudes.empty()) choices.push_back(Alternatives(magnitudes));
  }
  return choices.empty() ? "" : Alternatives(choices);
}

std::string NumberBetween(const NumberRange& range) {
  const auto edge = [](const Bound& bound) {
    return Edge{Magnitude(bound.decimals), bound.inclusive};
  };
  const auto negative = [&](const Bound& bound) {
    return bound.decimals[0] == '-' && !Magnitude(bound.decimals).zero();
  };
  Choices choices;
  if (!range.least || negative(*range.least)) {
    Edge low{.value = {}, .inclusive = false};  // anything beyond zero
    if (range.most && negative(*range.most)) low = edge(*range.most);
    const Edge high = range.least ? edge(*range.least) : Edge{};
    Choices magnitudes;
    PositiveBetween(low, range.least ? &high : nullptr, &magnitudes);
    if (!magnitudes.empty()) choices.push_back("\"-\" " + Alternatives(magnitudes));
  }
  if (!range.most || !negative(*range.most)) {
    const Edge low = range.least && !negative(*range.least) ? edge(*range.least) : Edge{};
    const Edge high = range.most ? edge(*range.most) : Edge{};
    Choices magnitudes;
    PositiveBetween(low, range.most ? &high : nullptr, &magnitudes);
    if (!magnitudes.empty()) choices.push_back(Alternatives(magnitudes));
  }
  return choices.empty() ? "" : Alternatives(choices);
}

Multiples MultiplesOf(int64_t divisor, const std::string& prefix) {
  Multiples result;
  Choices starts;
  for (int64_t digit = 1; digit <= 9; ++digit) {
    starts.push_back(fmt::format("\"{}\" {}{}", digit, prefix, digit % divisor));
  }
  for (int64_t remainder = 0; remainder < divisor; ++remainder) {
    Choices next;
    if (remainder == 0) next.push_back("\"\"");
    for (int64_t digit = 0; digit <= 9; ++digit) {
      next.push_back(fmt::format("\"{}\" {}{}", digit, prefix, (remainder * 10 + digit) % divisor));
    }
    result.rules += fmt::format("{}{} ::= {}\n", prefix, remainder, fmt::join(next, " | "));
  }
  result.expression = fmt::format("(\"0\" | \"-\"? {})", Alternatives(starts));
  return result;
}

}  // namespace bakestone::grammar
