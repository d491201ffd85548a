// The statement half of the parser, and the checks over a whole template.
#include "text/chat/parser.h"

#include <algorithm>
#include <initializer_list>

#include "text/chat/parser_base.h"

namespace bakestone::chat {
namespace {

using Names = std::initializer_list<std::string_view>;
using StmtPtr = std::unique_ptr<Stmt>;

bool MentionsContent(const Expr& e) {
  if ((e.kind == Expr::Kind::kAttr || e.kind == Expr::Kind::kConst) && e.value.is_string() &&
      e.value.str() == "content") {
    return true;
  }
  return std::any_of(e.children.begin(), e.children.end(),
                     [](const ExprPtr& c) { return c != nullptr && MentionsContent(*c); });
}

bool ComparesContent(const Expr& e) {
  if (e.kind == Expr::Kind::kCompare) {
    const auto literal = [](const ExprPtr& c) {
      // Tags of a format ("</think>", "[TOOL]") are what templates rightly look for.
      return c->kind == Expr::Kind::kConst && c->value.is_string() && !c->value.str().empty() &&
             c->value.str().find_first_of("<[{") == std::string::npos &&
             c->value.str() != "content";
    };
    const auto content = [](const ExprPtr& c) {
      return c->kind != Expr::Kind::kConst && MentionsContent(*c);
    };
    if (std::any_of(e.children.begin(), e.children.end(), literal) &&
        std::any_of(e.children.begin(), e.children.end(), content)) {
      return true;
    }
  }
  return std::any_of(e.children.begin(), e.children.end(),
                     [](const ExprPtr& c) { return c != nullptr && ComparesContent(*c); });
}

class Parser : ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {
    for (const char* name : {"loop", "caller", "varargs", "kwargs"}) Intern(name);
  }

  ParsedTemplate Run() {
    ParsedTemplate out;
    out.body = ParseBody({});
    CheckCalls();
    out.names = names_;
    for (const std::string& name : read_names_) {
      if (!set_names_.contains(name) && FindFunction(name) == nullptr &&
          Intern(name) > kKwargsName) {
        out.variables.insert(name);
      }
    }
    out.branches_on_content = branches_on_content_;
    return out;
  }

 private:
  StmtPtr MakeStmt(Stmt::Kind kind, int line) const {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = line;
    return stmt;
  }

  static bool IsAny(const Token& token, Names names) {
    return token.kind == Token::Kind::kName &&
           std::find(names.begin(), names.end(), token.text) != names.end();
  }

  // Statements up to a tag that starts with one of `ends` (left unread), or the template's end.
  Body ParseBody(Names ends) {
    const Nest nest(*this);
    Body body;
    while (Here().kind != Token::Kind::kEnd) {
      const Token& token = Next();
      switch (token.kind) {
        case Token::Kind::kData: {
          StmtPtr text = MakeStmt(Stmt::Kind::kText, token.line);
          text->value = Value(Text::Trusted(token.text));
          body.push_back(std::move(text));
          break;
        }
        case Token::Kind::kVariableBegin: {
          StmtPtr output = MakeStmt(Stmt::Kind::kOutput, token.line);
          output->expr = ParseTuple(true, false);
          body.push_back(std::move(output));
          if (Here().kind != Token::Kind::kVariableEnd) {
            Fail(Here(), "expected '}}}}', found {}", Here().Describe());
          }
          Next();
          break;
        }
        default:
          if (IsAny(Here(), ends)) return body;
          ParseStatement(body);
          EndTag();
      }
    }
    if (ends.size() != 0) {
      std::string wanted;
      for (const std::string_view end : ends) {
        wanted += (wanted.empty() ? "'" : " or '") + std::string(end) + "'";
      }
      Fail(Here(), "the template ends where {} is expected", wanted);
    }
    return body;
  }

  void EndTag() {
    if (Here().kind != Token::Kind::kBlockEnd) {
      Fail(Here(), "expected '%}}', found {}", Here().Describe());
    }
    Next();
  }

  // {% tag %} body {% end %}: from behind the tag's last expression to the end's name, read.
  Body ParseBlock(Names ends) {
    EndTag();
    return ParseBody(ends);
  }

  Body ParseWholeBlock(std::string_view end) {
    Body body = ParseBlock({end});
    Next();
    return body;
  }

  void ParseStatement(Body& out) {
    const Token& tag = Here();
    if (tag.kind != Token::Kind::kName) {
      Fail(tag, "expected a statement's name, found {}", tag.Describe());
    }
    const std::string& name = tag.text;
    if (name == "if") {
      out.push_back(ParseIf());
    } else if (name == "for") {
      out.push_back(ParseFor());
    } else if (name == "set") {
      out.push_back(ParseSet());
    } else if (name == "macro") {
      out.push_back(ParseMacro());
    } else if (name == "call") {
      out.push_back(ParseCallBlock());
    } else if (name == "filter") {
      out.push_back(ParseFilterBlock());
    } else if (name == "with") {
      out.push_back(ParseWith());
    } else if (name == "generation") {
      out.push_back(ParseGeneration());
    } else if (name == "print") {
      ParsePrint(out);
    } else if (name == "break" || name == "continue") {
      out.push_back(ParseJump());
    } else {
      Unsupported(tag.line, "unknown statement '{}'", name);
    }
  }

  StmtPtr ParseIf() {
    StmtPtr out = MakeStmt(Stmt::Kind::kIf, Here().line);
    do {
      Next();  // if, elif
      ExprPtr condition = ParseTuple(false, false);
      branches_on_content_ = branches_on_content_ || ComparesContent(*condition);
      Body body = ParseBlock({"elif", "else", "endif"});
      out->branches.emplace_back(std::move(condition), std::move(body));
    } while (Here().IsName("elif"));
    if (Here().IsName("else")) {
      Next();
      out->alternative = ParseBlock({"endif"});
    }
    Next();
    return out;
  }

  Target ParseTarget(bool with_namespace, std::string_view end) {
    const Nest nest(*this);
    std::vector<Target> items;
    bool tuple = false;
    while (true) {
      if (Here().Is("=") || (!end.empty() && Here().IsName(end)) || Here().Is(")")) break;
      if (SkipOp("(")) {
        items.push_back(ParseTarget(with_namespace, {}));
        ExpectOp(")");
      } else {
        items.push_back(ParseTargetName(with_namespace));
      }
      if (!SkipOp(",")) break;
      tuple = true;
    }
    if (items.empty()) Fail(Here(), "expected a name to assign to, found {}", Here().Describe());
    if (!tuple) return std::move(items[0]);
    Target out;
    out.tuple = std::move(items);
    return out;
  }

  Target ParseTargetName(bool with_namespace) {
    const Token& token = ExpectIdentifier();
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (token.text == constant) Fail(token, "can't assign to '{}'", token.text);
    }
    Target out;
    out.name = Intern(token.text);
    if (with_namespace && SkipOp(".")) {
      out.attribute = ExpectIdentifier().text;
      if (out.attribute.starts_with('_')) {
        Fail(token, "a namespace cannot store the underscore-prefixed name '{}'", out.attribute);
      }
      namespace_names_.insert(out.attribute);
    } else {
      set_names_.insert(token.text);
    }
    return out;
  }

  StmtPtr ParseFor() {
    StmtPtr out = MakeStmt(Stmt::Kind::kFor, Next().line);
    out->target = ParseTarget(false, "in");
    ExpectName("in");
    out->expr = ParseTuple(false, false, "recursive");
    if (SkipName("if")) out->filter = ParseExpression();
    out->recursive = SkipName("recursive");
    ++loops_;
    out->body = ParseBlock({"endfor", "else"});
    --loops_;
    if (SkipName("else")) out->alternative = ParseBlock({"endfor"});
    Next();
    return out;
  }

  StmtPtr ParseSet() {
    StmtPtr out = MakeStmt(Stmt::Kind::kSet, Next().line);
    out->target = ParseTarget(true, {});
    if (SkipOp("=")) {
      out->expr = ParseTuple(true, false);
      return out;
    }
    out->kind = Stmt::Kind::kSetBlock;
    out->filter = ParseFilters(nullptr, false);
    out->body = ParseWholeBlock("endset");
    return out;
  }

  // name(a, b=1): what a macro and a call block take.
  void ParseSignature(MacroNode& macro) {
    ExpectOp("(");
    while (!Here().Is(")")) {
      if (!macro.parameters.empty()) ExpectOp(",");
      const Token& name = ExpectIdentifier();
      for (const auto& [other, id] : macro.parameters) {
        if (other == name.text) Fail(name, "duplicate parameter '{}'", name.text);
      }
      macro.parameters.emplace_back(name.text, Intern(name.text));
      set_names_.insert(name.text);
      if (SkipOp("=")) {
        macro.defaults.push_back(ParseExpression());
      } else if (!macro.defaults.empty()) {
        Fail(name, "a parameter without default follows one with default");
      }
    }
    ExpectOp(")");
  }

  // The body of a macro; loops outside it cannot be left from inside.
  void ParseMacroBody(MacroNode& macro, std::string_view end) {
    const std::size_t first = read_names_.size();
    const int loops = std::exchange(loops_, 0);
    macro.body = ParseWholeBlock(end);
    loops_ = loops;
    const auto reads = [&](std::string_view name) {
      const auto begin = read_names_.begin() + static_cast<std::ptrdiff_t>(first);
      const bool parameter = std::any_of(macro.parameters.begin(), macro.parameters.end(),
                                         [&](const auto& p) { return p.first == name; });
      return !parameter && std::find(begin, read_names_.end(), name) != read_names_.end();
    };
    macro.uses_varargs = reads("varargs");
    macro.uses_kwargs = reads("kwargs");
    macro.uses_caller = reads("caller");
  }

  StmtPtr ParseMacro() {
    StmtPtr out = MakeStmt(Stmt::Kind::kMacro, Next().line);
    out->macro = std::make_unique<MacroNode>();
    out->target = ParseTargetName(false);
    out->macro->name = names_[static_cast<std::size_t>(out->target.name)];
    ParseSignature(*out->macro);
    ParseMacroBody(*out->macro, "endmacro");
    return out;
  }

  StmtPtr ParseCallBlock() {
    StmtPtr out = MakeStmt(Stmt::Kind::kCall, Next().line);
    out->macro = std::make_unique<MacroNode>();
    if (Here().Is("(")) ParseSignature(*out->macro);
    const Token& at = Here();
    out->expr = ParseExpression();
    if (out->expr->kind != Expr::Kind::kCall) Fail(at, "expected a call after 'call'");
    ParseMacroBody(*out->macro, "endcall");
    return out;
  }

  StmtPtr ParseFilterBlock() {
    StmtPtr out = MakeStmt(Stmt::Kind::kFilterBlock, Next().line);
    out->expr = ParseFilters(nullptr, true);
    out->body = ParseWholeBlock("endfilter");
    return out;
  }

  StmtPtr ParseWith() {
    StmtPtr out = MakeStmt(Stmt::Kind::kWith, Next().line);
    while (Here().kind != Token::Kind::kBlockEnd) {
      if (!out->bindings.empty()) ExpectOp(",");
      Target target = ParseTargetName(false);
      ExpectOp("=");
      out->bindings.emplace_back(std::move(target), ParseExpression());
    }
    out->body = ParseWholeBlock("endwith");
    return out;
  }

  StmtPtr ParseGeneration() {
    StmtPtr out = MakeStmt(Stmt::Kind::kGeneration, Next().line);
    const int loops = std::exchange(loops_, 0);
    out->body = ParseWholeBlock("endgeneration");
    loops_ = loops;
    return out;
  }

  void ParsePrint(Body& out) {
    const int line = Next().line;
    while (Here().kind != Token::Kind::kBlockEnd) {
      StmtPtr output = MakeStmt(Stmt::Kind::kOutput, line);
      output->expr = ParseExpression();
      out.push_back(std::move(output));
      if (!SkipOp(",")) break;
    }
  }

  StmtPtr ParseJump() {
    const Token& token = Next();
    if (loops_ == 0) Fail(token, "'{}' outside of a loop", token.text);
    return MakeStmt(token.text == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue, token.line);
  }

  // Names that are called must be something a template can call, unless it asks `is defined` first.
  void CheckCalls() const {
    for (const auto& [name, line] : called_names_) {
      if (FindFunction(name) != nullptr || set_names_.contains(name) || guarded_.contains(name)) {
        continue;
      }
      if (ids_.at(name) > kKwargsName) Unsupported(line, "unknown function '{}'", name);
    }
    for (const auto& [name, line] : called_methods_) {
      if (IsKnownMethod(name) || namespace_names_.contains(name) || guarded_.contains(name)) {
        continue;
      }
      Unsupported(line, "unknown method '{}'", name);
    }
  }

  int loops_ = 0;  // open around here, within the innermost macro
  bool branches_on_content_ = false;
  std::set<std::string> set_names_;
};

}  // namespace

ParsedTemplate ParseTemplate(std::string_view source) { return Parser(Tokenize(source)).Run(); }

}  // namespace bakestone::chat
