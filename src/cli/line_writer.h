// Lines for stderr from threads that must not wait for it: a terminal that stands still, or a full
// pipe, would else stop the engine. A thread of its own writes them; what does not fit into its
// queue is left out and counted.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace bakestone::cli {

class LineWriter {
 public:
  explicit LineWriter(int file_descriptor, size_t most_bytes = size_t{4} << 20);
  ~LineWriter();  // waits until what is queued is written, but not for ever

  void Write(const std::string& line);  // any thread; never blocks on the file

 private:
  void Loop();

  const int file_;
  const size_t most_bytes_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string queued_;
  int64_t left_out_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace bakestone::cli
