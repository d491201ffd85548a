// Counts one level of Eval or Exec while it lives, and notes the line for messages.
#pragma once

#include "text/chat/interpreter.h"

namespace bakestone::chat {

class Interpreter::Level {
 public:
  Level(Interpreter& interpreter, int line) : interpreter_(interpreter) {
    interpreter_.line_ = line;
    interpreter_.budget.Step();
    if (interpreter_.levels_ >= kMaxLevels) Fail("the template recurses too deeply");
    ++interpreter_.levels_;
  }
  ~Level() { --interpreter_.levels_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  Interpreter& interpreter_;
};

}  // namespace bakestone::chat
