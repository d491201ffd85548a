// A progress bar with rate and time left when stderr is a terminal; otherwise a plain line now and
// then. One thread. The bar is erased before other output and drawn again after it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace bakestone::cli {

class Progress {
 public:
  // unit: what is counted, for people ("tokens", "questions").
  Progress(std::string label, int64_t total, std::string unit);
  ~Progress();  // Finish()

  // done: units so far. note: a short word beside the bar ("loss 2.31"). Draws at most 5 times a
  // second (a terminal), or every 10 seconds (a file).
  void Update(int64_t done, const std::string& note = {});
  void Print(const std::string& line);  // a line above the bar
  void Finish();

 private:
  using Clock = std::chrono::steady_clock;
  void Draw(bool last);
  void Erase();

  std::string label_, unit_, note_;
  int64_t total_, done_ = 0, first_done_ = -1;  // first_done_: of the first Update; -1: none yet
  bool terminal_, drawn_ = false, finished_ = false;
  Clock::time_point start_, first_update_, last_draw_;
};

}  // namespace bakestone::cli
