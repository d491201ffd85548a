// Filters over numbers, and those that pass a value through.
#include <fmt/format.h>

#include <cmath>

#include "text/chat/filters.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

Value Abs(Runtime&, const Value& self, const CallArgs& args) {
  Params("abs", args, {});
  if (self.is_float()) return Value(std::fabs(self.as_double()));
  if (!self.is_integral()) FailF("bad operand type for abs(): '{}'", self.type_name());
  return self.as_int() < 0 ? Negate(self) : Value(self.as_int());
}

std::optional<Value> Truncated(double d) {
  if (!std::isfinite(d)) return std::nullopt;
  if (std::fabs(d) > 1.7e38) Fail("an integer is beyond 128 bits");
  return Value(static_cast<Int>(std::trunc(d)));
}

Value ToInt(Runtime&, const Value& self, const CallArgs& args) {
  const Params p("int", args, {"default", "base"});
  const Value fallback = p.Get(0, Value(0));
  if (self.is_integral()) return Value(self.as_int());
  if (self.is_float()) return Truncated(self.as_double()).value_or(fallback);
  if (self.is_undefined()) Fail(self.undefined_message());
  if (!self.is_string()) return fallback;
  if (const auto whole = ParseInt(self.str(), static_cast<int>(p.Integer(1, 10)))) {
    return Value(*whole);
  }
  if (const auto real = ParseDouble(self.str())) return Truncated(*real).value_or(fallback);
  return fallback;
}

Value ToFloat(Runtime&, const Value& self, const CallArgs& args) {
  const Params p("float", args, {"default"});
  if (self.is_number()) return Value(self.as_double());
  if (self.is_undefined()) Fail(self.undefined_message());
  if (self.is_string()) {
    if (const auto real = ParseDouble(self.str())) return Value(*real);
  }
  return p.Get(0, Value(0.0));
}

double RoundHalfEven(double value, int precision) {
  if (!std::isfinite(value) || precision > 300) return value;
  if (precision >= 0) return *ParseDouble(fmt::format("{:.{}f}", value, precision));
  const double unit = std::pow(10.0, -precision);
  return std::nearbyint(value / unit) * unit;
}

Value RoundInt(Int value, int precision) {
  if (precision >= 0) return Value(value);
  if (precision < -37) return Value(0);
  Int unit = 1;
  for (int i = 0; i < -precision; ++i) unit *= 10;
  Int rest = value % unit;
  if (rest < 0) rest += unit;
  const Int low = value - rest;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (low / unit) % 2 != 0);
  return Value(up ? low + unit : low);
}

Value Round(Runtime&, const Value& self, const CallArgs& args) {
  const Params p("round", args, {"precision", "method"});
  if (self.is_undefined()) Fail(self.undefined_message());
  if (!self.is_number()) FailF("type {} doesn't define __round__ method", self.type_name());
  const Int digits = p.Integer(0, 0);
  if (digits > 1000 || digits < -1000) Fail("round: expected a precision within 1,000");
  const auto precision = static_cast<int>(digits);
  const std::string method = p.Has(1) ? p.String(1).bytes() : "common";
  if (method == "common") {
    if (self.is_integral()) return RoundInt(self.as_int(), precision);
    return Value(RoundHalfEven(self.as_double(), precision));
  }
  if (method != "ceil" && method != "floor") Fail("method must be common, ceil or floor");
  const double unit = std::pow(10.0, precision);
  const double scaled = self.as_double() * unit;
  if (!std::isfinite(scaled)) Fail("cannot convert float infinity or NaN to integer");
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit + 0.0);
}

Value Default(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("default", args, {"default_value", "boolean"});
  const bool replace = self.is_undefined() || (p.Flag(1, false) && !Truthy(self));
  return replace ? p.Get(0, rt.MakeString("")) : self;
}

Value Attr(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("attr", args, {"name"}, 1);
  p.String(0);
  // Attributes only, never items: a dict's keys are not its attributes.
  if (self.is_undefined()) Fail(self.undefined_message());
  const bool has =
      self.is_object() || HasMethod(self, p[0].str()) || IsMutatingMethod(self, p[0].str());
  if (!has) {
    return Value::MakeUndefined(
        fmt::format("'{} object' has no attribute '{}'", self.type_name(), p[0].str()));
  }
  return GetAttribute(rt, self, p[0]);
}

Value FromJson(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("from_json", args, {});
  if (!self.is_string()) FailF("from_json: expected a string, found {}", self.type_name());
  return ParseJson(rt, self.text());
}

Value WordCount(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("wordcount", args, {});
  const Text text = rt.ToText(self);
  int count = 0;
  bool inside = false;
  for (std::size_t i = 0; i < text.size();) {
    const bool word = IsWord(NextCodePoint(text.view(), i));
    count += word && !inside;
    inside = word;
  }
  return Value(count);
}

Value FileSize(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("filesizeformat", args, {"binary"});
  const Value number = ToFloat(rt, self, {});
  const bool binary = p.Flag(0, false);
  const double bytes = number.as_double();
  const double base = binary ? 1024 : 1000;
  if (!std::isfinite(bytes)) Fail("filesizeformat: expected a finite number");
  if (bytes == 1) return rt.MakeString("1 Byte");
  if (bytes < base) {
    return rt.MakeString(
        fmt::format("{} Bytes", IntToString(static_cast<Int>(std::max(bytes, -1e30)))));
  }
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base * base;
  std::size_t i = 0;
  for (; i + 1 < kPrefixes.size() && bytes >= unit; ++i) unit *= base;
  const char prefix = binary && i == 0 ? 'K' : kPrefixes[i];
  return rt.MakeString(fmt::format("{:.1f} {}{}B", base * bytes / unit, prefix, binary ? "i" : ""));
}

constexpr NamedBuiltin kScalarFilters[] = {
    {"abs", Abs},
    {"attr", Attr},
    {"d", Default},
    {"default", Default},
    {"filesizeformat", FileSize},
    {"float", ToFloat},
    {"from_json", FromJson},
    {"int", ToInt},
    {"round", Round},
    {"wordcount", WordCount},
};

}  // namespace

std::span<const NamedBuiltin> ScalarFilters() { return kScalarFilters; }

}  // namespace bakestone::chat
