#include <fmt/format.h>

#include <algorithm>

#include "text/chat/interpreter.h"
#include "text/chat/interpreter_level.h"

namespace bakestone::chat {

Value Interpreter::Eval(const Expr& e, const ScopeRef& scope) {
  using Kind = Expr::Kind;
  const Level level(*this, e.line);
  switch (e.kind) {
    case Kind::kConst:
      return e.value;
    case Kind::kName:
      return EvalName(e, scope);
    case Kind::kList:
    case Kind::kTuple:
      return EvalItems(e, scope);
    case Kind::kDict:
      return EvalDict(e, scope);
    case Kind::kAttr:
      return GetAttribute(*this, Eval(*e.children[0], scope), e.value);
    case Kind::kItem: {
      const Value container = Eval(*e.children[0], scope);
      return GetItem(*this, container, Eval(*e.children[1], scope));
    }
    case Kind::kSlice:
      return EvalSlice(e, scope);
    case Kind::kCall: {
      const Value callee = Eval(*e.children[0], scope);
      CallArgs args = EvalArguments(e.call, scope);
      line_ = e.line;
      return Call(callee, std::move(args));
    }
    case Kind::kFilter:
      return ApplyFilters(e, Value(), scope);
    case Kind::kTest: {
      const Value subject = Eval(*e.children[0], scope);
      return e.builtin->call(*this, subject, EvalArguments(e.call, scope));
    }
    case Kind::kNegate:
      return Negate(Eval(*e.children[0], scope));
    case Kind::kPlus: {
      const Value value = Eval(*e.children[0], scope);
      if (value.is_undefined()) Fail(value.undefined_message());
      if (!value.is_number()) FailF("bad operand type for unary +: '{}'", value.type_name());
      return value.is_bool() ? Value(value.as_int()) : value;
    }
    case Kind::kNot:
      return Value(!Truthy(Eval(*e.children[0], scope)));
    case Kind::kAnd: {
      Value left = Eval(*e.children[0], scope);
      return Truthy(left) ? Eval(*e.children[1], scope) : left;
    }
    case Kind::kOr: {
      Value left = Eval(*e.children[0], scope);
      return Truthy(left) ? left : Eval(*e.children[1], scope);
    }
    case Kind::kCond:
      return EvalCondition(e, scope);
    case Kind::kBinary: {
      const Value left = Eval(*e.children[0], scope);
      const Value right = Eval(*e.children[1], scope);
      line_ = e.line;
      return Arithmetic(*this, e.text, left, right);
    }
    case Kind::kConcat:
      return EvalConcat(e, scope);
    case Kind::kCompare:
      return EvalCompare(e, scope);
  }
  return Value();
}

Value Interpreter::EvalName(const Expr& e, const ScopeRef& scope) {
  for (Scope* s = scope.get(); s != nullptr; s = s->parent.get()) {
    if (const Value* found = s->Find(e.name_id)) return *found;
  }
  if (const NamedBuiltin* builtin = FindFunction(e.text)) {
    auto function = std::make_shared<Function>();
    function->builtin = builtin;
    return Value(std::move(function));
  }
  return Value::MakeUndefined(fmt::format("'{}' is undefined", e.text));
}

Value Interpreter::EvalItems(const Expr& e, const ScopeRef& scope) {
  std::vector<Value> items;
  items.reserve(e.children.size());
  for (const ExprPtr& child : e.children) items.push_back(Eval(*child, scope));
  return NewList(std::move(items), e.kind == Expr::Kind::kTuple);
}

Value Interpreter::EvalDict(const Expr& e, const ScopeRef& scope) {
  std::vector<Dict::Item> items;
  for (std::size_t i = 0; i < e.children.size(); i += 2) {
    Value key = Eval(*e.children[i], scope);
    items.emplace_back(std::move(key), Eval(*e.children[i + 1], scope));
  }
  return NewDict(std::move(items));
}

Value Interpreter::EvalSlice(const Expr& e, const ScopeRef& scope) {
  const Value container = Eval(*e.children[0], scope);
  const auto bound = [&](std::size_t i) {
    return e.children[i] != nullptr ? Eval(*e.children[i], scope) : Value();
  };
  const Value start = bound(1);
  const Value stop = bound(2);
  return GetSlice(*this, container, start, stop, bound(3));
}

Value Interpreter::EvalCondition(const Expr& e, const ScopeRef& scope) {
  if (Truthy(Eval(*e.children[1], scope))) return Eval(*e.children[0], scope);
  if (e.children[2] != nullptr) return Eval(*e.children[2], scope);
  return Value::MakeUndefined(
      "the inline if-expression evaluated to false and no else section was defined.");
}

Value Interpreter::EvalConcat(const Expr& e, const ScopeRef& scope) {
  Text out;
  for (const ExprPtr& child : e.children) {
    out.Append(ToText(Eval(*child, scope)));
    if (static_cast<std::int64_t>(out.size()) > budget.limits().max_string_bytes) {
      budget.String(out.size());
    }
  }
  return MakeString(std::move(out));
}

bool Interpreter::Compare(std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return Equal(a, b);
  if (op == "!=") return !Equal(a, b);
  if (op == "in") return Contains(*this, b, a);
  if (op == "not in") return !Contains(*this, b, a);
  if (op == "<") return Less(a, b);
  if (op == ">") return Less(b, a);
  const bool less = op == "<=" ? Less(a, b) : Less(b, a);  // fails where there is no order
  return less || Equal(a, b);
}

Value Interpreter::EvalCompare(const Expr& e, const ScopeRef& scope) {
  Value left = Eval(*e.children[0], scope);
  for (std::size_t i = 0; i < e.operators.size(); ++i) {
    Value right = Eval(*e.children[i + 1], scope);
    line_ = e.line;
    budget.Step(1 + std::max(left.depth(), right.depth()));
    if (!Compare(e.operators[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::ApplyFilters(const Expr& e, Value input, const ScopeRef& scope) {
  const Level level(*this, e.line);
  if (e.children[0] != nullptr) {
    // In a filter block the innermost filter's child is null: the block's text takes its place.
    const bool chain = e.children[0]->kind == Expr::Kind::kFilter;
    input =
        chain ? ApplyFilters(*e.children[0], std::move(input), scope) : Eval(*e.children[0], scope);
  }
  const CallArgs args = EvalArguments(e.call, scope);
  line_ = e.line;
  return e.builtin->call(*this, input, args);
}

CallArgs Interpreter::EvalArguments(const CallNodes& call, const ScopeRef& scope) {
  CallArgs args;
  for (const ExprPtr& argument : call.positional) args.positional.push_back(Eval(*argument, scope));
  for (const auto& [name, argument] : call.keyword) {
    args.keyword.emplace_back(name, Eval(*argument, scope));
  }
  if (call.star != nullptr) {
    for (Value& item : Iterate(Eval(*call.star, scope))) args.positional.push_back(std::move(item));
  }
  if (call.double_star != nullptr) {
    const Value more = Eval(*call.double_star, scope);
    if (!more.is_dict()) FailF("argument after ** must be a mapping, not {}", more.type_name());
    for (const auto& [key, value] : more.dict().items()) {
      if (!key.is_string()) Fail("keywords must be strings");
      for (const auto& given : args.keyword) {
        if (given.first == key.str()) {
          FailF("got multiple values for keyword argument '{}'", key.str());
        }
      }
      args.keyword.emplace_back(key.str(), value);
    }
  }
  return args;
}

Value Interpreter::Call(const Value& callee, CallArgs args) {
  budget.Step();
  if (callee.is_undefined()) Fail(callee.undefined_message());
  if (const auto* function = callee.As<Function>()) {
    return function->builtin->call(*this, Value(), args);
  }
  if (const auto* method = callee.As<BoundMethod>()) {
    return CallMethod(*this, method->self, method->name, args);
  }
  if (const auto* macro = callee.As<Macro>()) return CallMacro(*macro, std::move(args));
  if (auto* joiner = callee.As<Joiner>()) {
    Params("joiner", args, {});
    if (std::exchange(joiner->used, true)) return joiner->separator;
    return MakeString("");
  }
  if (auto* loop = callee.As<Loop>()) {
    if (loop->recurse == nullptr) {
      Fail("The loop must have the 'recursive' marker to be called recursively.");
    }
    const Params p("loop", args, {"iterable"}, 1);
    if (++calls_ > budget.limits().max_depth) {
      FailF("loops recurse deeper than {} levels", budget.limits().max_depth);
    }
    const auto recurse = loop->recurse;
    Value out = recurse(p[0]);
    --calls_;
    return out;
  }
  FailF("'{}' object is not callable", callee.type_name());
}

void Interpreter::BindParameters(const MacroNode& node, CallArgs& args, const ScopeRef& scope) {
  const std::size_t count = node.parameters.size();
  const auto take = [&](std::string_view name) -> std::optional<Value> {
    for (auto it = args.keyword.begin(); it != args.keyword.end(); ++it) {
      if (it->first != name) continue;
      Value value = std::move(it->second);
      args.keyword.erase(it);
      return value;
    }
    return std::nullopt;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [name, id] = node.parameters[i];
    const std::size_t first_default = count - node.defaults.size();
    std::optional<Value> value;
    if (i < args.positional.size()) {
      value = args.positional[i];
    } else {
      value = take(name);
    }
    if (!value && i >= first_default) value = Eval(*node.defaults[i - first_default], scope);
    scope->Set(id,
               value ? *value
                     : Value::MakeUndefined(fmt::format("parameter '{}' was not provided", name)));
  }
  if (node.uses_caller) {
    const std::optional<Value> caller = take("caller");
    scope->Set(kCallerName, caller ? *caller : Value::MakeUndefined("No caller defined"));
  }
  const std::string name = node.name.empty() ? "None" : "'" + node.name + "'";
  if (node.uses_kwargs) {
    std::vector<Dict::Item> items;
    for (auto& [key, value] : args.keyword) items.emplace_back(MakeString(key), std::move(value));
    scope->Set(kKwargsName, NewDict(std::move(items)));
  } else if (!args.keyword.empty()) {
    FailF("macro {} takes no keyword argument '{}'", name, args.keyword[0].first);
  }
  if (node.uses_varargs) {
    std::vector<Value> rest;
    for (std::size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    scope->Set(kVarargsName, NewList(std::move(rest), true));
  } else if (args.positional.size() > count) {
    FailF("macro {} takes not more than {} argument(s)", name, count);
  }
}

Value Interpreter::CallMacro(const Macro& macro, CallArgs args) {
  if (++calls_ > budget.limits().max_depth) {
    FailF("macros recurse deeper than {} levels", budget.limits().max_depth);
  }
  const ScopeRef scope = Inner(macro.closure);
  BindParameters(*macro.node, args, scope);
  Text text = Capture(macro.node->body, scope);
  --calls_;
  return MakeString(std::move(text));
}

std::optional<Value> MacroAttribute(const Value& value, std::string_view name) {
  const auto* macro = value.As<Macro>();
  if (macro == nullptr) return std::nullopt;
  if (name == "name") {
    return macro->node->name.empty() ? Value() : Value(Text::Trusted(macro->node->name));
  }
  if (name == "catch_kwargs") return Value(macro->node->uses_kwargs);
  if (name == "catch_varargs") return Value(macro->node->uses_varargs);
  if (name == "caller") return Value(macro->node->uses_caller);
  if (name != "arguments") return std::nullopt;
  std::vector<Value> names;
  for (const auto& parameter : macro->node->parameters) {
    names.push_back(Value(Text::Trusted(parameter.first)));
  }
  return MakeTuple(std::move(names));
}

}  // namespace bakestone::chat
