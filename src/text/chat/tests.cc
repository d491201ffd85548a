// jinja2's tests: x is defined, x is divisibleby 3, ...
#include <algorithm>

#include "text/chat/builtins.h"

namespace bakestone::chat {
namespace {

bool Compare(Runtime& rt, std::string_view op, const Value& a, const CallArgs& args) {
  const Params p(op, args, {"other"}, 1);
  if (op == "==") return Equal(a, p[0]);
  if (op == "!=") return !Equal(a, p[0]);
  if (op == "<") return Less(a, p[0]);
  if (op == ">") return Less(p[0], a);
  if (op == "<=") {
    return Equal(a, p[0]) ? !a.is_undefined() || (Less(a, p[0]), false) : Less(a, p[0]);
  }
  if (op == ">=") {
    return Equal(a, p[0]) ? !a.is_undefined() || (Less(a, p[0]), false) : Less(p[0], a);
  }
  return Contains(rt, p[0], a);
}

template <char... kOp>
Value CompareTest(Runtime& rt, const Value& self, const CallArgs& args) {
  constexpr char kText[] = {kOp...};
  return Value(Compare(rt, std::string_view(kText, sizeof(kText)), self, args));
}

template <auto kPredicate>
Value Simple(Runtime&, const Value& self, const CallArgs& args) {
  Params("test", args, {});
  return Value(static_cast<bool>(kPredicate(self)));
}

bool IsSequence(const Value& v) {
  // Python asks for len() and __getitem__.
  return v.is_undefined() || v.is_string() || v.is_list() || v.is_dict() ||
         v.As<Range>() != nullptr;
}

Value Divisible(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("divisibleby", args, {"num"}, 1);
  return Value(Equal(Arithmetic(rt, "%", self, p[0]), Value(0)));
}

Value Parity(Runtime& rt, const Value& self, int rest) {
  return Value(Equal(Arithmetic(rt, "%", self, Value(2)), Value(rest)));
}

Value SameAs(Runtime&, const Value& self, const CallArgs& args) {
  const Params p("sameas", args, {"other"}, 1);
  const Value& other = p[0];
  if (self.kind() != other.kind()) return Value(false);
  if (self.is_list()) return Value(&self.list() == &other.list());
  if (self.is_dict()) return Value(&self.dict() == &other.dict());
  return Value(Equal(self, other));
}

Value Cased(Runtime& rt, const Value& self, std::string_view method) {
  return CallMethod(rt, rt.MakeString(rt.ToText(self)), method, {});
}

template <bool kFilter>
Value NameOf(Runtime&, const Value& self, const CallArgs&) {
  return Value(self.is_string() &&
               (kFilter ? FindFilter(self.str()) : FindTest(self.str())) != nullptr);
}

constexpr NamedBuiltin kTests[] = {
    {"!=", CompareTest<'!', '='>},
    {"<", CompareTest<'<'>},
    {"<=", CompareTest<'<', '='>},
    {"==", CompareTest<'=', '='>},
    {">", CompareTest<'>'>},
    {">=", CompareTest<'>', '='>},
    {"boolean", Simple<[](const Value& v) { return v.is_bool(); }>},
    {"callable", Simple<[](const Value& v) { return IsCallable(v); }>},
    {"defined", Simple<[](const Value& v) { return !v.is_undefined(); }>},
    {"divisibleby", Divisible},
    {"eq", CompareTest<'=', '='>},
    {"equalto", CompareTest<'=', '='>},
    {"escaped", Simple<[](const Value& v) { return v.is_string() && v.text().markup(); }>},
    {"even", [](Runtime& rt, const Value& v, const CallArgs&) { return Parity(rt, v, 0); }},
    {"false", Simple<[](const Value& v) { return v.is_bool() && !v.as_bool(); }>},
    {"filter", NameOf<true>},
    {"float", Simple<[](const Value& v) { return v.is_float(); }>},
    {"ge", CompareTest<'>', '='>},
    {"greaterthan", CompareTest<'>'>},
    {"gt", CompareTest<'>'>},
    {"in", CompareTest<'i', 'n'>},
    {"integer", Simple<[](const Value& v) { return v.is_int(); }>},
    {"iterable", Simple<[](const Value& v) { return Iterable(v); }>},
    {"le", CompareTest<'<', '='>},
    {"lessthan", CompareTest<'<'>},
    {"lower", [](Runtime& rt, const Value& v, const CallArgs&) { return Cased(rt, v, "islower"); }},
    {"lt", CompareTest<'<'>},
    {"mapping", Simple<[](const Value& v) { return v.is_dict(); }>},
    {"ne", CompareTest<'!', '='>},
    {"none", Simple<[](const Value& v) { return v.is_none(); }>},
    {"number", Simple<[](const Value& v) { return v.is_number(); }>},
    {"odd", [](Runtime& rt, const Value& v, const CallArgs&) { return Parity(rt, v, 1); }},
    {"sameas", SameAs},
    {"sequence", Simple<IsSequence>},
    {"string", Simple<[](const Value& v) { return v.is_string(); }>},
    {"test", NameOf<false>},
    {"true", Simple<[](const Value& v) { return v.is_bool() && v.as_bool(); }>},
    {"undefined", Simple<[](const Value& v) { return v.is_undefined(); }>},
    {"upper", [](Runtime& rt, const Value& v, const CallArgs&) { return Cased(rt, v, "isupper"); }},
};

}  // namespace

const NamedBuiltin* FindTest(std::string_view name) {
  const auto* it = std::find_if(std::begin(kTests), std::end(kTests),
                                [&](const NamedBuiltin& b) { return b.name == name; });
  return it == std::end(kTests) ? nullptr : it;
}

}  // namespace bakestone::chat
