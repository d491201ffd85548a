// + - * / // % ** and unary minus with Python's meaning: floor division, int and float apart.
#include <algorithm>
#include <cmath>

#include "text/chat/builtins.h"
#include "text/chat/objects.h"

namespace bakestone::chat {
namespace {

[[noreturn]] void Overflow() { Fail("an integer is beyond 128 bits"); }

Int NegateInt(Int a) {
  Int out = 0;
  if (__builtin_sub_overflow(Int{0}, a, &out)) Overflow();
  return out;
}

Int FloorDivide(Int a, Int b) {
  if (b == 0) Fail("integer division or modulo by zero");
  if (b == -1) return NegateInt(a);  // the one quotient that can overflow
  const Int q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

Value IntPower(Int base, Int exponent) {
  if (exponent < 0) {
    if (base == 0) Fail("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Value(exponent == 0 ? Int{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? Int{1} : Int{-1});
  if (exponent > 127) Overflow();
  Int out = 1;
  for (Int i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(out, base, &out)) Overflow();
  }
  return Value(out);
}

double FloatMod(double a, double b) {
  if (b == 0) Fail("float modulo");
  double mod = std::fmod(a, b);
  if (mod != 0) return (b < 0) != (mod < 0) ? mod + b : mod;
  return std::copysign(0.0, b);
}

double FloatFloorDivide(double a, double b) {
  if (b == 0) Fail("float floor division by zero");
  const double mod = FloatMod(a, b);
  const double quotient = (a - mod) / b;
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value IntArithmetic(std::string_view op, Int a, Int b) {
  Int out = 0;
  if (op == "+") {
    if (__builtin_add_overflow(a, b, &out)) Overflow();
  } else if (op == "-") {
    if (__builtin_sub_overflow(a, b, &out)) Overflow();
  } else if (op == "*") {
    if (__builtin_mul_overflow(a, b, &out)) Overflow();
  } else if (op == "/") {
    if (b == 0) Fail("division by zero");
    return Value(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
  } else if (op == "//") {
    out = FloorDivide(a, b);
  } else if (op == "%") {
    out = a - FloorDivide(a, b) * b;
  } else {
    return IntPower(a, b);
  }
  return Value(out);
}

Value FloatArithmetic(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "//") return Value(FloatFloorDivide(a, b));
  if (op == "%") return Value(FloatMod(a, b));
  if (op == "/") {
    if (b == 0) Fail("float division by zero");
    return Value(a / b);
  }
  if (a == 0 && b < 0) Fail("0.0 cannot be raised to a negative power");
  if (a < 0 && std::floor(b) != b && std::isfinite(b)) {
    Fail("a negative number to a fractional power is complex, which templates do not have");
  }
  const double out = std::pow(a, b);
  if (std::isinf(out) && std::isfinite(a) && std::isfinite(b)) {
    Fail("numerical result out of range");
  }
  return Value(out);
}

Value Repeat(Runtime& runtime, const Value& value, Int times) {
  const std::size_t unit = value.is_string() ? value.text().size() : value.list().items.size();
  const auto count = static_cast<std::size_t>(times < 0 || unit == 0 ? Int{0} : times);
  const Limits& limits = runtime.budget.limits();
  const std::int64_t cap = value.is_string() ? limits.max_string_bytes : limits.max_items;
  if (unit != 0 &&
      static_cast<Int>(unit) * static_cast<Int>(std::min<Int>(times, Int{1} << 62)) > cap) {
    FailF("repeating would pass {} {}", cap, value.is_string() ? "bytes" : "items");
  }
  if (value.is_string()) {
    Text out;
    out.set_markup(value.text().markup());
    for (std::size_t i = 0; i < count; ++i) out.Append(value.text());
    return runtime.MakeString(std::move(out));
  }
  std::vector<Value> items;
  for (std::size_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list().items.begin(), value.list().items.end());
  }
  return runtime.NewList(std::move(items), value.is_tuple());
}

Value Join(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_list()) {
    std::vector<Value> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    return runtime.NewList(std::move(items), a.is_tuple());
  }
  const bool markup = a.text().markup() || b.text().markup();
  runtime.budget.Work(a.text().size() + b.text().size());
  Text out = markup ? EscapeHtml(a.text()) : a.text();
  out.Append(markup ? EscapeHtml(b.text()) : b.text());
  out.set_markup(markup);
  return runtime.MakeString(std::move(out));
}

}  // namespace

Text EscapeHtml(const Text& text) {
  if (text.markup()) return text;
  Text out;
  Text::Cursor cursor(text);
  const std::string& s = text.bytes();
  for (std::size_t i = 0; i < s.size(); ++i) {
    const char c = s[i];
    const std::string_view piece = c == '&'    ? "&amp;"
                                   : c == '<'  ? "&lt;"
                                   : c == '>'  ? "&gt;"
                                   : c == '\'' ? "&#39;"
                                   : c == '"'  ? "&#34;"
                                               : std::string_view(s).substr(i, 1);
    out.Append(piece, cursor.Trusted(i));
  }
  out.set_markup(true);
  return out;
}

Value Arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (op == "%" && a.is_string()) return runtime.MakeString(PercentFormat(runtime, a.text(), b));
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) Fail(v->undefined_message());
  }
  if (a.is_integral() && b.is_integral()) return IntArithmetic(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return FloatArithmetic(op, a.as_double(), b.as_double());
  if (op == "+") {
    if (a.is_string() && b.is_string()) return Join(runtime, a, b);
    if (a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) return Join(runtime, a, b);
    if (a.is_string() || a.is_list()) {
      FailF("can only concatenate {0} (not \"{1}\") to {0}", a.type_name(), b.type_name());
    }
  } else if (op == "*") {
    if ((a.is_string() || a.is_list()) && b.is_integral()) return Repeat(runtime, a, b.as_int());
    if ((b.is_string() || b.is_list()) && a.is_integral()) return Repeat(runtime, b, a.as_int());
  }
  FailF("unsupported operand type(s) for {}: '{}' and '{}'", op, a.type_name(), b.type_name());
}

Value Negate(const Value& value) {
  if (value.is_undefined()) Fail(value.undefined_message());
  if (value.is_integral()) return Value(NegateInt(value.as_int()));
  if (value.is_float()) return Value(-value.as_double());
  FailF("bad operand type for unary -: '{}'", value.type_name());
}

}  // namespace bakestone::chat
