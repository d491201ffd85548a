// The token stream and the expression half of the parser.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/chat/ast.h"
#include "text/chat/lexer.h"

namespace bakestone::chat {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  // Nesting of brackets and blocks; Python's own parser stops near 100 to 200.
  static constexpr int kMaxNesting = 120;
  // Height of an expression's tree: a + b + c + ... leans to the left without nesting.
  static constexpr int kMaxExprDepth = 400;

  class Nest {
   public:
    explicit Nest(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) {
        parser_.Fail(parser_.Here(), "the template nests too deeply");
      }
    }
    ~Nest() { --parser_.nesting_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    ExpressionParser& parser_;
  };

  template <class... Args>
  [[noreturn]] void Fail(const Token& at, fmt::format_string<Args...> format,
                         Args&&... args) const {
    Throw(ErrorCode::kInvalidArgument, "line {}: {}", at.line,
          fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  [[noreturn]] void Unsupported(int line, fmt::format_string<Args...> format,
                                Args&&... args) const {
    Throw(ErrorCode::kUnsupported, "line {}: {}", line,
          fmt::format(format, std::forward<Args>(args)...));
  }

  const Token& Here() const { return tokens_[pos_]; }
  const Token& Ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  const Token& Next() { return tokens_[pos_ + 1 < tokens_.size() ? pos_++ : pos_]; }
  bool SkipName(std::string_view name);
  bool SkipOp(std::string_view op);
  void ExpectOp(std::string_view op);
  void ExpectName(std::string_view name);
  const Token& ExpectIdentifier();
  NameId Intern(const std::string& name);

  ExprPtr Make(Expr::Kind kind, int line) const;
  void Adopt(Expr& parent, ExprPtr child) const;  // child may be null
  ExprPtr Binary(Expr::Kind kind, int line, std::string op, ExprPtr left, ExprPtr right) const;

  ExprPtr ParseExpression(bool conditional = true);
  // One expression, or a tuple if commas follow; `end` is a name that also ends it.
  ExprPtr ParseTuple(bool conditional, bool parentheses, std::string_view end = {});
  ExprPtr ParseFilters(ExprPtr node, bool starts_with_name);
  CallNodes ParseCallArguments();
  void AdoptCall(Expr& parent, CallNodes call) const;
  ExprPtr ParsePrimary();
  ExprPtr ParsePostfix(ExprPtr node);

  std::vector<Token> tokens_;
  std::size_t pos_ = 0;
  int nesting_ = 0;
  std::vector<std::string> names_;
  std::map<std::string, NameId> ids_;
  // What the parsed template does, for the checks at its end: names read and called, and set.
  std::vector<std::pair<std::string, int>> called_names_;
  std::vector<std::pair<std::string, int>> called_methods_;
  std::vector<std::string> read_names_;    // every name read, in order
  std::set<std::string> guarded_;          // names that an `is defined` asks about
  std::set<std::string> namespace_names_;  // attributes that namespaces are given

 private:
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseAdditive();
  ExprPtr ParseConcat();
  ExprPtr ParseTerm();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filters);
  ExprPtr ParseFilterChain(ExprPtr node);
  ExprPtr ParseTest(ExprPtr node);
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParseSubscript(ExprPtr node);
  ExprPtr ParseCall(ExprPtr callee);
  void CheckFilterNames(const Expr& filter) const;
  bool AtTupleEnd(std::string_view end) const;
};

}  // namespace bakestone::chat
