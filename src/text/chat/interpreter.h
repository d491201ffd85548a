// Runs a parsed template once. Owns everything that the run makes: scopes, namespaces, output.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat/ast.h"
#include "text/chat/objects.h"
#include "text/chat/parser.h"

namespace bakestone::chat {

// Variables of one block. A macro keeps the scope it was defined in.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<NameId, Value>> variables;

  Value* Find(NameId name) {
    for (auto& [id, value] : variables) {
      if (id == name) return &value;
    }
    return nullptr;
  }
  void Set(NameId name, Value value) {
    if (Value* old = Find(name)) {
      *old = std::move(value);
    } else {
      variables.emplace_back(name, std::move(value));
    }
  }
};

struct Macro final : Object {
  const MacroNode* node = nullptr;
  std::shared_ptr<Scope> closure;
  std::string_view type_name() const override { return "Macro"; }
  bool callable() const override { return true; }
};

class Interpreter final : public Runtime {
 public:
  Interpreter(const ParsedTemplate& parsed, const RenderOptions& options);
  ~Interpreter() override;
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  void SetGlobal(NameId name, Value value) { globals_->Set(name, std::move(value)); }
  // Runs the whole template. Errors carry no line: line() tells where it stopped.
  Text Run();
  int line() const { return line_; }
  const std::vector<std::pair<std::size_t, std::size_t>>& generation() const { return generation_; }

  Value Call(const Value& callee, CallArgs args) override;
  std::shared_ptr<Namespace> NewNamespace() override;

 private:
  using ScopeRef = std::shared_ptr<Scope>;
  enum class Flow { kNormal, kBreak, kContinue };
  // Levels of Eval and Exec together: about 1 KB of stack each (5 KB under sanitizers).
  static constexpr int kMaxLevels = 900;
  class Level;

  Flow ExecBody(const Body& body, const ScopeRef& scope, Text& out);
  Flow Exec(const Stmt& stmt, const ScopeRef& scope, Text& out);
  Flow ExecIf(const Stmt& stmt, const ScopeRef& scope, Text& out);
  void ExecFor(const Stmt& stmt, const ScopeRef& scope, Text& out);
  void RunLoop(const Stmt& stmt, const Value& iterable, int depth0, const ScopeRef& scope,
               Text& out);
  std::vector<Value> LoopItems(const Stmt& stmt, const Value& iterable, const ScopeRef& scope);
  void ExecSetBlock(const Stmt& stmt, const ScopeRef& scope);
  void ExecCallBlock(const Stmt& stmt, const ScopeRef& scope, Text& out);
  void ExecWith(const Stmt& stmt, const ScopeRef& scope, Text& out);
  void ExecGeneration(const Stmt& stmt, const ScopeRef& scope, Text& out);
  void Assign(const Target& target, const Value& value, const ScopeRef& scope);
  void Write(Text& out, const Text& text);
  void WriteString(Text& out, const Value& value, std::string_view what);
  Text Capture(const Body& body, const ScopeRef& scope);
  ScopeRef Inner(const ScopeRef& scope) { return std::make_shared<Scope>(Scope{scope, {}}); }
  Value NewMacro(const MacroNode& node, const ScopeRef& scope);

  Value Eval(const Expr& e, const ScopeRef& scope);
  Value EvalName(const Expr& e, const ScopeRef& scope);
  Value EvalItems(const Expr& e, const ScopeRef& scope);
  Value EvalDict(const Expr& e, const ScopeRef& scope);
  Value EvalSlice(const Expr& e, const ScopeRef& scope);
  Value EvalCondition(const Expr& e, const ScopeRef& scope);
  Value EvalConcat(const Expr& e, const ScopeRef& scope);
  Value EvalCompare(const Expr& e, const ScopeRef& scope);
  Value ApplyFilters(const Expr& e, Value input, const ScopeRef& scope);
  CallArgs EvalArguments(const CallNodes& call, const ScopeRef& scope);
  bool Compare(std::string_view op, const Value& a, const Value& b);
  Value CallMacro(const Macro& macro, CallArgs args);
  void BindParameters(const MacroNode& node, CallArgs& args, const ScopeRef& scope);

  const ParsedTemplate& parsed_;
  ScopeRef globals_;
  int line_ = 1;
  int levels_ = 0;
  int calls_ = 0;
  const Text* root_ = nullptr;  // the buffer of the result
  std::vector<std::pair<std::size_t, std::size_t>> generation_;
  // Whatever can be part of a cycle; taken apart at the end.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<ScopeRef> captured_;
};

}  // namespace bakestone::chat
