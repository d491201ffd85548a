#include <algorithm>
#include <array>

#include "text/chat/parser_base.h"

namespace bakestone::chat {

using Kind = Expr::Kind;

bool ExpressionParser::SkipName(std::string_view name) {
  if (!Here().IsName(name)) return false;
  Next();
  return true;
}

bool ExpressionParser::SkipOp(std::string_view op) {
  if (!Here().Is(op)) return false;
  Next();
  return true;
}

void ExpressionParser::ExpectOp(std::string_view op) {
  if (!SkipOp(op)) Fail(Here(), "expected '{}', found {}", op, Here().Describe());
}

void ExpressionParser::ExpectName(std::string_view name) {
  if (!SkipName(name)) Fail(Here(), "expected '{}', found {}", name, Here().Describe());
}

const Token& ExpressionParser::ExpectIdentifier() {
  if (Here().kind != Token::Kind::kName) {
    Fail(Here(), "expected a name, found {}", Here().Describe());
  }
  return Next();
}

NameId ExpressionParser::Intern(const std::string& name) {
  const auto [it, added] = ids_.try_emplace(name, static_cast<NameId>(names_.size()));
  if (added) names_.push_back(name);
  return it->second;
}

ExprPtr ExpressionParser::Make(Kind kind, int line) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

void ExpressionParser::Adopt(Expr& parent, ExprPtr child) const {
  if (child != nullptr) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxExprDepth) {
    Fail(Here(), "an expression has more than {} levels", kMaxExprDepth);
  }
  parent.children.push_back(std::move(child));
}

ExprPtr ExpressionParser::Binary(Kind kind, int line, std::string op, ExprPtr left,
                                 ExprPtr right) const {
  ExprPtr node = Make(kind, line);
  node->text = std::move(op);
  Adopt(*node, std::move(left));
  Adopt(*node, std::move(right));
  return node;
}

ExprPtr ExpressionParser::ParseExpression(bool conditional) {
  const Nest nest(*this);
  ExprPtr node = ParseOr();
  while (conditional && Here().IsName("if")) {
    const int line = Next().line;
    ExprPtr condition = ParseOr();
    ExprPtr otherwise = SkipName("else") ? ParseExpression() : nullptr;
    ExprPtr choice = Make(Kind::kCond, line);
    Adopt(*choice, std::move(node));
    Adopt(*choice, std::move(condition));
    Adopt(*choice, std::move(otherwise));
    node = std::move(choice);
  }
  return node;
}

ExprPtr ExpressionParser::ParseOr() {
  ExprPtr left = ParseAnd();
  while (Here().IsName("or")) {
    const int line = Next().line;
    left = Binary(Kind::kOr, line, "or", std::move(left), ParseAnd());
  }
  return left;
}

ExprPtr ExpressionParser::ParseAnd() {
  ExprPtr left = ParseNot();
  while (Here().IsName("and")) {
    const int line = Next().line;
    left = Binary(Kind::kAnd, line, "and", std::move(left), ParseNot());
  }
  return left;
}

ExprPtr ExpressionParser::ParseNot() {
  if (!Here().IsName("not")) return ParseCompare();
  const Nest nest(*this);
  ExprPtr node = Make(Kind::kNot, Next().line);
  Adopt(*node, ParseNot());
  return node;
}

ExprPtr ExpressionParser::ParseCompare() {
  constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", "<", "<=", ">", ">="};
  ExprPtr first = ParseAdditive();
  ExprPtr node;
  while (true) {
    const int line = Here().line;
    std::string op;
    if (std::any_of(kOperators.begin(), kOperators.end(), [&](auto o) { return Here().Is(o); })) {
      op = Next().text;
    } else if (SkipName("in")) {
      op = "in";
    } else if (Here().IsName("not") && Ahead().IsName("in")) {
      Next();
      Next();
      op = "not in";
    } else {
      return node != nullptr ? std::move(node) : std::move(first);
    }
    if (node == nullptr) {
      node = Make(Kind::kCompare, line);
      Adopt(*node, std::move(first));
    }
    node->operators.push_back(std::move(op));
    Adopt(*node, ParseAdditive());
  }
}

ExprPtr ExpressionParser::ParseAdditive() {
  ExprPtr left = ParseConcat();
  while (Here().Is("+") || Here().Is("-")) {
    const Token& op = Next();
    left = Binary(Kind::kBinary, op.line, op.text, std::move(left), ParseConcat());
  }
  return left;
}

ExprPtr ExpressionParser::ParseConcat() {
  ExprPtr first = ParseTerm();
  if (!Here().Is("~")) return first;
  ExprPtr node = Make(Kind::kConcat, Here().line);
  Adopt(*node, std::move(first));
  while (SkipOp("~")) Adopt(*node, ParseTerm());
  return node;
}

ExprPtr ExpressionParser::ParseTerm() {
  ExprPtr left = ParsePower();
  while (Here().Is("*") || Here().Is("/") || Here().Is("//") || Here().Is("%")) {
    const Token& op = Next();
    left = Binary(Kind::kBinary, op.line, op.text, std::move(left), ParsePower());
  }
  return left;
}

ExprPtr ExpressionParser::ParsePower() {
  ExprPtr left = ParseUnary(true);
  while (Here().Is("**")) {
    const Token& op = Next();
    left = Binary(Kind::kBinary, op.line, op.text, std::move(left), ParseUnary(true));
  }
  return left;
}

ExprPtr ExpressionParser::ParseUnary(bool with_filters) {
  const Nest nest(*this);
  ExprPtr node;
  if (Here().Is("-") || Here().Is("+")) {
    const Token& op = Next();
    node = Make(op.text == "-" ? Kind::kNegate : Kind::kPlus, op.line);
    Adopt(*node, ParseUnary(false));
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filters ? ParseFilterChain(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::ParsePrimary() {
  const Token& token = Here();
  ExprPtr node;
  switch (token.kind) {
    case Token::Kind::kName: {
      const std::string& name = Next().text;
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        node = Make(Kind::kConst, token.line);
        node->value = Value(name == "true" || name == "True");
      } else if (name == "none" || name == "None") {
        node = Make(Kind::kConst, token.line);
      } else {
        if (name == "self") Unsupported(token.line, "'self' (template blocks) is not supported");
        node = Make(Kind::kName, token.line);
        node->text = name;
        node->name_id = Intern(name);
        read_names_.push_back(name);
      }
      return node;
    }
    case Token::Kind::kString: {
      std::string text;
      while (Here().kind == Token::Kind::kString) text += Next().text;
      node = Make(Kind::kConst, token.line);
      node->value = Value(Text::Trusted(std::move(text)));
      return node;
    }
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      node = Make(Kind::kConst, token.line);
      node->value = Next().number;
      return node;
    default:
      break;
  }
  if (SkipOp("(")) {
    node = ParseTuple(true, true);
    ExpectOp(")");
    return node;
  }
  if (token.Is("[")) return ParseList();
  if (token.Is("{")) return ParseDict();
  Fail(token, "unexpected {}", token.Describe());
}

bool ExpressionParser::AtTupleEnd(std::string_view end) const {
  return Here().kind == Token::Kind::kVariableEnd || Here().kind == Token::Kind::kBlockEnd ||
         Here().Is(")") || (!end.empty() && Here().IsName(end));
}

ExprPtr ExpressionParser::ParseTuple(bool conditional, bool parentheses, std::string_view end) {
  const Nest nest(*this);
  const Token& start = Here();
  std::vector<ExprPtr> items;
  bool tuple = false;
  while (true) {
    if (!items.empty()) ExpectOp(",");
    if (AtTupleEnd(end)) break;
    items.push_back(ParseExpression(conditional));
    if (!Here().Is(",")) break;
    tuple = true;
  }
  if (!tuple && !items.empty()) return std::move(items[0]);
  if (!tuple && !parentheses) Fail(start, "expected an expression, found {}", Here().Describe());
  ExprPtr node = Make(Kind::kTuple, start.line);
  for (ExprPtr& item : items) Adopt(*node, std::move(item));
  return node;
}

ExprPtr ExpressionParser::ParseList() {
  ExprPtr node = Make(Kind::kList, Next().line);
  while (!Here().Is("]")) {
    if (!node->children.empty()) ExpectOp(",");
    if (Here().Is("]")) break;
    Adopt(*node, ParseExpression());
  }
  ExpectOp("]");
  return node;
}

ExprPtr ExpressionParser::ParseDict() {
  ExprPtr node = Make(Kind::kDict, Next().line);
  while (!Here().Is("}")) {
    if (!node->children.empty()) ExpectOp(",");
    if (Here().Is("}")) break;
    Adopt(*node, ParseExpression());
    ExpectOp(":");
    Adopt(*node, ParseExpression());
  }
  ExpectOp("}");
  return node;
}

ExprPtr ExpressionParser::ParsePostfix(ExprPtr node) {
  while (true) {
    if (Here().Is(".") || Here().Is("[")) {
      node = ParseSubscript(std::move(node));
    } else if (Here().Is("(")) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::ParseSubscript(ExprPtr node) {
  const Token& open = Next();
  if (open.text == ".") {
    const Token& name = Next();
    ExprPtr out;
    if (name.kind == Token::Kind::kName) {
      out = Make(Kind::kAttr, open.line);
      out->text = name.text;
      out->value = Value(Text::Trusted(name.text));
      Adopt(*out, std::move(node));
      return out;
    }
    if (name.kind != Token::Kind::kInteger) {
      Fail(name, "expected a name or number after '.', found {}", name.Describe());
    }
    ExprPtr index = Make(Kind::kConst, name.line);
    index->value = name.number;
    return Binary(Kind::kItem, open.line, "", std::move(node), std::move(index));
  }
  if (!Here().Is(":")) {
    ExprPtr key = ParseExpression();
    if (SkipOp("]")) return Binary(Kind::kItem, open.line, "", std::move(node), std::move(key));
    if (Here().Is(",")) {  // x[1, 2]: a tuple for a key
      ExprPtr tuple = Make(Kind::kTuple, open.line);
      Adopt(*tuple, std::move(key));
      while (SkipOp(",")) Adopt(*tuple, ParseExpression());
      ExpectOp("]");
      return Binary(Kind::kItem, open.line, "", std::move(node), std::move(tuple));
    }
    if (!Here().Is(":")) Fail(Here(), "expected ']', found {}", Here().Describe());
    ExprPtr out = Binary(Kind::kSlice, open.line, "", std::move(node), std::move(key));
    node = std::move(out);
  } else {
    node = Binary(Kind::kSlice, open.line, "", std::move(node), nullptr);
  }
  ExpectOp(":");
  const auto bound = [&] { return Here().Is(":") || Here().Is("]") ? nullptr : ParseExpression(); };
  Adopt(*node, bound());
  Adopt(*node, SkipOp(":") ? bound() : nullptr);
  ExpectOp("]");
  return node;
}

CallNodes ExpressionParser::ParseCallArguments() {
  const Nest nest(*this);
  CallNodes call;
  ExpectOp("(");
  bool comma = false;
  while (!Here().Is(")")) {
    if (comma) {
      ExpectOp(",");
      if (Here().Is(")")) break;
    }
    comma = true;
    const Token& at = Here();
    const bool named = at.kind == Token::Kind::kName && Ahead().Is("=");
    const bool order =
        named || at.Is("*") ? call.double_star == nullptr && (named || call.star == nullptr)
        : at.Is("**") ? call.double_star == nullptr
                      : call.keyword.empty() && call.star == nullptr && call.double_star == nullptr;
    if (!order) Fail(at, "invalid order of arguments in a call");
    if (SkipOp("*")) {
      call.star = ParseExpression();
    } else if (SkipOp("**")) {
      call.double_star = ParseExpression();
    } else if (named) {
      const std::string name = Next().text;
      Next();
      if (std::any_of(call.keyword.begin(), call.keyword.end(),
                      [&](const auto& k) { return k.first == name; })) {
        Fail(at, "keyword argument repeated: {}", name);
      }
      call.keyword.emplace_back(name, ParseExpression());
    } else {
      call.positional.push_back(ParseExpression());
    }
  }
  ExpectOp(")");
  return call;
}

void ExpressionParser::AdoptCall(Expr& parent, CallNodes call) const {
  const auto measure = [&](const ExprPtr& argument) {
    if (argument != nullptr) parent.depth = std::max(parent.depth, argument->depth + 1);
  };
  for (const ExprPtr& argument : call.positional) measure(argument);
  for (const auto& [name, argument] : call.keyword) measure(argument);
  measure(call.star);
  measure(call.double_star);
  if (parent.depth > kMaxExprDepth) {
    Fail(Here(), "an expression has more than {} levels", kMaxExprDepth);
  }
  parent.call = std::move(call);
}

ExprPtr ExpressionParser::ParseCall(ExprPtr callee) {
  ExprPtr node = Make(Kind::kCall, Here().line);
  if (callee->kind == Kind::kName) called_names_.emplace_back(callee->text, callee->line);
  if (callee->kind == Kind::kAttr) called_methods_.emplace_back(callee->text, callee->line);
  AdoptCall(*node, ParseCallArguments());
  if (callee->kind == Kind::kName && callee->text == "namespace") {
    for (const auto& keyword : node->call.keyword) namespace_names_.insert(keyword.first);
  }
  Adopt(*node, std::move(callee));
  return node;
}

ExprPtr ExpressionParser::ParseFilterChain(ExprPtr node) {
  while (true) {
    if (Here().Is("|")) {
      node = ParseFilters(std::move(node), false);
    } else if (Here().IsName("is")) {
      node = ParseTest(std::move(node));
    } else if (Here().Is("(")) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
  }
}

void ExpressionParser::CheckFilterNames(const Expr& filter) const {
  const bool attr = filter.text == "selectattr" || filter.text == "rejectattr";
  const bool test = attr || filter.text == "select" || filter.text == "reject";
  const std::size_t at = attr ? 1 : 0;
  if ((!test && filter.text != "map") || filter.call.positional.size() <= at) return;
  const Expr& name = *filter.call.positional[at];
  if (name.kind != Kind::kConst || !name.value.is_string()) return;
  if (test && FindTest(name.value.str()) == nullptr) {
    Unsupported(name.line, "no test named '{}' (in the filter '{}')", name.value.str(),
                filter.text);
  }
  if (!test && FindFilter(name.value.str()) == nullptr) {
    Unsupported(name.line, "no filter named '{}' (in the filter 'map')", name.value.str());
  }
}

ExprPtr ExpressionParser::ParseFilters(ExprPtr node, bool starts_with_name) {
  while (starts_with_name || SkipOp("|")) {
    starts_with_name = false;
    const Token& token = ExpectIdentifier();
    ExprPtr filter = Make(Kind::kFilter, token.line);
    filter->text = token.text;
    while (SkipOp(".")) filter->text += "." + ExpectIdentifier().text;
    filter->builtin = FindFilter(filter->text);
    if (filter->builtin == nullptr) Unsupported(token.line, "no filter named '{}'", filter->text);
    if (Here().Is("(")) AdoptCall(*filter, ParseCallArguments());
    CheckFilterNames(*filter);
    Adopt(*filter, std::move(node));
    node = std::move(filter);
  }
  return node;
}

ExprPtr ExpressionParser::ParseTest(ExprPtr node) {
  Next();  // is
  const bool negated = SkipName("not");
  const Token& token = ExpectIdentifier();
  ExprPtr test = Make(Kind::kTest, token.line);
  test->text = token.text;
  while (SkipOp(".")) test->text += "." + ExpectIdentifier().text;
  test->builtin = FindTest(test->text);
  if (test->builtin == nullptr) Unsupported(token.line, "no test named '{}'", test->text);
  const Token& after = Here();
  const bool literal = after.kind == Token::Kind::kName || after.kind == Token::Kind::kString ||
                       after.kind == Token::Kind::kInteger || after.kind == Token::Kind::kFloat ||
                       after.Is("[") || after.Is("{");
  if (after.Is("(")) {
    AdoptCall(*test, ParseCallArguments());
  } else if (literal && !after.IsName("else") && !after.IsName("or") && !after.IsName("and")) {
    if (after.IsName("is")) Fail(after, "tests cannot be chained with 'is'");
    CallNodes call;
    call.positional.push_back(ParsePostfix(ParsePrimary()));
    AdoptCall(*test, std::move(call));
  }
  if (test->text == "defined" && (node->kind == Kind::kName || node->kind == Kind::kAttr)) {
    guarded_.insert(node->text);
  }
  Adopt(*test, std::move(node));
  if (!negated) return test;
  ExprPtr inverse = Make(Kind::kNot, token.line);
  Adopt(*inverse, std::move(test));
  return inverse;
}

}  // namespace bakestone::chat
