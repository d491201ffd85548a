// The parsed template: expressions and statements. Built by the parser, then only read; shared by
// all renders of a ChatTemplate.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat/builtins.h"
#include "text/chat/value.h"

namespace bakestone::chat {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Stmt>>;
using NameId = std::int32_t;  // a variable's name, numbered by the parser

struct CallNodes {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keyword;
  ExprPtr star;         // *args
  ExprPtr double_star;  // **kwargs
};

struct Expr {
  enum class Kind {
    kConst,   // value
    kName,    // name_id
    kList,    // children
    kTuple,   // children
    kDict,    // children: key, value, key, value...
    kAttr,    // children[0].value
    kItem,    // children[0][children[1]]
    kSlice,   // children[0][children[1]:children[2]:children[3]]; 1 to 3 may be null
    kCall,    // children[0](call)
    kFilter,  // children[0] (null in a filter block) | builtin(call)
    kTest,    // children[0] is builtin(call)
    kNegate,
    kPlus,
    kNot,  // children[0]
    kAnd,
    kOr,       // children[0], children[1]
    kCond,     // children[0] if children[1] else children[2] (may be null)
    kBinary,   // children[0] text children[1]
    kConcat,   // children joined by ~
    kCompare,  // children[0] operators[0] children[1] operators[1] ...
  };
  Kind kind;
  int line = 0;
  int depth = 1;     // of the tree below, bounded by the parser
  std::string text;  // name, attribute, operator, filter or test
  NameId name_id = -1;
  Value value;
  std::vector<ExprPtr> children;
  std::vector<std::string> operators;
  CallNodes call;
  const NamedBuiltin* builtin = nullptr;
};

// What an assignment writes to: a name, ns.attribute, or a tuple of these.
struct Target {
  NameId name = -1;
  std::string attribute;  // not empty: name.attribute, and `name` must hold a namespace
  std::vector<Target> tuple;
};

struct MacroNode {
  std::string name;
  std::vector<std::pair<std::string, NameId>> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

struct Stmt {
  enum class Kind {
    kText,         // value
    kOutput,       // expr
    kIf,           // branches, and alternative
    kFor,          // for target in expr if filter: body, else alternative
    kSet,          // target = expr
    kSetBlock,     // target = body | filter
    kMacro,        // macro, stored in target
    kCall,         // expr called with macro as caller
    kFilterBlock,  // body | expr
    kWith,         // targets = values: body
    kGeneration,   // body
    kBreak,
    kContinue,
  };
  Kind kind;
  int line = 0;
  Value value;
  ExprPtr expr;
  ExprPtr filter;
  Target target;
  Body body;
  Body alternative;
  std::vector<std::pair<ExprPtr, Body>> branches;
  std::vector<std::pair<Target, ExprPtr>> bindings;
  std::unique_ptr<MacroNode> macro;
  bool recursive = false;
};

}  // namespace bakestone::chat
