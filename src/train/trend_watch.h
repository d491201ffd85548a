// What goes wrong slowly while a stage trains: the loss leaps, gradients grow, or there is nothing
// left to learn from.
#pragma once

#include <cstdint>
#include <string>

#include "train/trainer.h"

namespace bakestone {

class TrendWatch {
 public:
  // What to say of this step; empty: nothing. A leap is measured against the 20 steps before.
  std::string Look(const StepReport& report);

 private:
  std::string Words(const StepReport& report) const;

  int64_t count_ = 0;
  bool still_ = false;  // the last gradient was zero
  double loss_ = 0, variance_ = 0, norm_ = 0;
};

}  // namespace bakestone
