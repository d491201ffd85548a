// Adds the time of a scope, in seconds, to a sum of its own.
#pragma once

#include <chrono>

namespace bakestone {

class PhaseTimer {
 public:
  explicit PhaseTimer(double& to) : to_(to), start_(Clock::now()) {}
  ~PhaseTimer() { to_ += std::chrono::duration<double>(Clock::now() - start_).count(); }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& to_;
  Clock::time_point start_;
};

}  // namespace bakestone
