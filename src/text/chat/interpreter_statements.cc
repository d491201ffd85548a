#include <algorithm>
#include <iterator>

#include "text/chat/interpreter.h"
#include "text/chat/interpreter_level.h"

namespace bakestone::chat {

Interpreter::Interpreter(const ParsedTemplate& parsed, const RenderOptions& options)
    : Runtime(options.limits, options.now), parsed_(parsed), globals_(std::make_shared<Scope>()) {}

Interpreter::~Interpreter() {
  // Namespaces and macros may form rings: empty each while all of them are still alive.
  for (const auto& ns : namespaces_) ns->attributes.clear();
  for (const auto& scope : captured_) scope->variables.clear();
  for (const auto& scope : captured_) scope->parent.reset();
}

Text Interpreter::Run() {
  Text out;
  root_ = &out;
  ExecBody(parsed_.body, Inner(globals_), out);
  root_ = nullptr;
  return out;
}

std::shared_ptr<Namespace> Interpreter::NewNamespace() {
  budget.Items(4);
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

Value Interpreter::NewMacro(const MacroNode& node, const ScopeRef& scope) {
  auto macro = std::make_shared<Macro>();
  macro->node = &node;
  macro->closure = scope;
  budget.Items(4);
  if (captured_.empty() || captured_.back() != scope) captured_.push_back(scope);
  return Value(std::move(macro));
}

void Interpreter::Write(Text& out, const Text& text) {
  out.Append(text);
  budget.Work(text.size());
  const auto size = static_cast<std::int64_t>(out.size());
  if (size > budget.limits().max_output_bytes) {
    FailF("the output passes {} bytes", budget.limits().max_output_bytes);
  }
}

// What jinja2 joins into the output without making it a string first.
void Interpreter::WriteString(Text& out, const Value& value, std::string_view what) {
  if (!value.is_string()) FailF("{} must give a string, found {}", what, value.type_name());
  Write(out, value.text());
}

Text Interpreter::Capture(const Body& body, const ScopeRef& scope) {
  Text out;
  ExecBody(body, scope, out);
  budget.String(out.size());
  return out;
}

Interpreter::Flow Interpreter::ExecBody(const Body& body, const ScopeRef& scope, Text& out) {
  for (const auto& stmt : body) {
    const Flow flow = Exec(*stmt, scope, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::Exec(const Stmt& stmt, const ScopeRef& scope, Text& out) {
  const Level level(*this, stmt.line);
  switch (stmt.kind) {
    case Stmt::Kind::kText:
      Write(out, stmt.value.text());
      break;
    case Stmt::Kind::kOutput:
      Write(out, ToText(Eval(*stmt.expr, scope)));
      break;
    case Stmt::Kind::kIf:
      return ExecIf(stmt, scope, out);
    case Stmt::Kind::kFor:
      ExecFor(stmt, scope, out);
      break;
    case Stmt::Kind::kSet:
      Assign(stmt.target, Eval(*stmt.expr, scope), scope);
      break;
    case Stmt::Kind::kSetBlock:
      ExecSetBlock(stmt, scope);
      break;
    case Stmt::Kind::kMacro:
      Assign(stmt.target, NewMacro(*stmt.macro, scope), scope);
      break;
    case Stmt::Kind::kCall:
      ExecCallBlock(stmt, scope, out);
      break;
    case Stmt::Kind::kFilterBlock:
      WriteString(out,
                  ApplyFilters(*stmt.expr, MakeString(Capture(stmt.body, Inner(scope))), scope),
                  "a filter block");
      break;
    case Stmt::Kind::kWith:
      ExecWith(stmt, scope, out);
      break;
    case Stmt::Kind::kGeneration:
      ExecGeneration(stmt, scope, out);
      break;
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::ExecIf(const Stmt& stmt, const ScopeRef& scope, Text& out) {
  for (const auto& [condition, body] : stmt.branches) {
    if (Truthy(Eval(*condition, scope))) return ExecBody(body, scope, out);
  }
  return ExecBody(stmt.alternative, scope, out);
}

void Interpreter::ExecFor(const Stmt& stmt, const ScopeRef& scope, Text& out) {
  RunLoop(stmt, Eval(*stmt.expr, scope), 0, scope, out);
}

std::vector<Value> Interpreter::LoopItems(const Stmt& stmt, const Value& iterable,
                                          const ScopeRef& scope) {
  std::vector<Value> items = Iterate(iterable);
  if (stmt.filter == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const ScopeRef inner = Inner(scope);
    Assign(stmt.target, item, inner);
    if (Truthy(Eval(*stmt.filter, inner))) kept.push_back(std::move(item));
  }
  return kept;
}

void Interpreter::RunLoop(const Stmt& stmt, const Value& iterable, int depth0,
                          const ScopeRef& scope, Text& out) {
  auto loop = std::make_shared<Loop>();
  loop->items = LoopItems(stmt, iterable, scope);
  loop->depth = DepthAbove(loop->items);
  loop->depth0 = depth0;
  if (stmt.recursive) {
    loop->recurse = [this, &stmt, depth0, weak = std::weak_ptr<Scope>(scope)](const Value& inner) {
      const ScopeRef outer = weak.lock();
      if (outer == nullptr) Fail("a loop was called after its end");
      Text text;
      RunLoop(stmt, inner, depth0 + 1, outer, text);
      return MakeString(std::move(text));
    };
  }
  // Python's compiled loop notes an iteration at the end of its body: one that is cut short by
  // break or continue does not count for the else branch.
  bool completed = false;
  ScopeRef inner;
  for (loop->index0 = 0; loop->index0 < loop->items.size(); ++loop->index0) {
    budget.Step();
    if (inner != nullptr && inner.use_count() == 1) {
      inner->variables.clear();
    } else {
      inner = Inner(scope);
    }
    inner->Set(kLoopName, Value(Value::ObjectRef(loop)));
    Assign(stmt.target, loop->items[loop->index0], inner);
    const Flow flow = ExecBody(stmt.body, inner, out);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) completed = true;
  }
  if (!completed) ExecBody(stmt.alternative, Inner(scope), out);
}

void Interpreter::ExecSetBlock(const Stmt& stmt, const ScopeRef& scope) {
  Value text = MakeString(Capture(stmt.body, Inner(scope)));
  if (stmt.filter != nullptr) text = ApplyFilters(*stmt.filter, std::move(text), scope);
  Assign(stmt.target, text, scope);
}

void Interpreter::ExecCallBlock(const Stmt& stmt, const ScopeRef& scope, Text& out) {
  const Value callee = Eval(*stmt.expr->children[0], scope);
  CallArgs args = EvalArguments(stmt.expr->call, scope);
  args.keyword.emplace_back("caller", NewMacro(*stmt.macro, scope));
  WriteString(out, Call(callee, std::move(args)), "a call block");
}

void Interpreter::ExecWith(const Stmt& stmt, const ScopeRef& scope, Text& out) {
  const ScopeRef inner = Inner(scope);
  for (const auto& [target, expr] : stmt.bindings) Assign(target, Eval(*expr, scope), inner);
  ExecBody(stmt.body, inner, out);
}

void Interpreter::ExecGeneration(const Stmt& stmt, const ScopeRef& scope, Text& out) {
  const std::size_t begin = out.size();
  ExecBody(stmt.body, Inner(scope), out);
  if (&out == root_) generation_.emplace_back(begin, out.size());
}

void Interpreter::Assign(const Target& target, const Value& value, const ScopeRef& scope) {
  if (!target.tuple.empty()) {
    const std::vector<Value> parts = Iterate(value);
    if (parts.size() != target.tuple.size()) {
      FailF("{} values to unpack (expected {}, got {})",
            parts.size() < target.tuple.size() ? "not enough" : "too many", target.tuple.size(),
            parts.size());
    }
    for (std::size_t i = 0; i < parts.size(); ++i) Assign(target.tuple[i], parts[i], scope);
    return;
  }
  if (target.attribute.empty()) {
    scope->Set(target.name, value);
    return;
  }
  const std::string& name = parsed_.names[static_cast<std::size_t>(target.name)];
  Value* found = nullptr;
  for (Scope* s = scope.get(); s != nullptr && found == nullptr; s = s->parent.get()) {
    found = s->Find(target.name);
  }
  auto* ns = found != nullptr ? found->As<Namespace>() : nullptr;
  if (ns == nullptr) {
    FailF("cannot assign attribute '{}' on '{}', which is not a namespace", target.attribute, name);
  }
  ns->Set(target.attribute, value);
}

}  // namespace bakestone::chat
