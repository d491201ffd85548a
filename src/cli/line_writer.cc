#include "cli/line_writer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

namespace bakestone::cli {
namespace {

constexpr int kPatienceMs = 1000;  // at the end, for a file that takes nothing

}  // namespace

LineWriter::LineWriter(int file_descriptor, size_t most_bytes)
    : file_(file_descriptor), most_bytes_(most_bytes), thread_([this] { Loop(); }) {}

LineWriter::~LineWriter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void LineWriter::Write(const std::string& line) {
  {
    std::lock_guard lock(mutex_);
    if (queued_.size() + line.size() + 1 > most_bytes_) {
      ++left_out_;
      return;
    }
    queued_ += line;
    queued_ += '\n';
  }
  wake_.notify_one();
}

void LineWriter::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stopping_ || !queued_.empty(); });
    if (queued_.empty()) return;
    std::string text = std::exchange(queued_, {});
    if (const int64_t count = std::exchange(left_out_, 0); count > 0) {
      text += fmt::format("{{\"left_out_lines\":{}}}\n", count);
    }
    lock.unlock();
    for (size_t sent = 0; sent < text.size();) {
      pollfd ready{file_, POLLOUT, 0};
      const int polled = ::poll(&ready, 1, kPatienceMs);
      lock.lock();
      const bool give_up = polled <= 0 && stopping_;
      lock.unlock();
      if (give_up) break;
      if (polled <= 0) continue;
      // PIPE_BUF bytes never block a pipe that poll calls ready.
      const ssize_t n =
          ::write(file_, text.data() + sent, std::min<size_t>(text.size() - sent, 4096));
      if (n < 0 && errno != EINTR && errno != EAGAIN) break;  // closed: nobody reads it
      if (n > 0) sent += static_cast<size_t>(n);
    }
    lock.lock();
  }
}

}  // namespace bakestone::cli
