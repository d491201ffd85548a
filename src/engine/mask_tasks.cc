#include "engine/mask_tasks.h"

#include <utility>

#include "base/error.h"

namespace bakestone {

MaskTasks::~MaskTasks() {
  {
    std::lock_guard lock(mutex_);
    next_ = count_;
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

// False: every task was begun.
bool MaskTasks::RunNext(std::unique_lock<std::mutex>& lock) {
  if (next_ == count_) return false;
  const size_t mine = next_++;
  ++running_;
  lock.unlock();
  task_(mine);
  lock.lock();
  --running_;
  return true;
}

void MaskTasks::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || next_ < count_; });
    if (stopping_) return;
    while (RunNext(lock)) {
    }
    ended_.notify_one();
  }
}

void MaskTasks::Start(size_t count, std::function<void(size_t)> task) {
  if (count == 0) return;
  {
    std::lock_guard lock(mutex_);
    BAKESTONE_CHECK(next_ == count_ && running_ == 0);
    task_ = std::move(task);
    count_ = count;
    next_ = 0;
    if (!thread_.joinable()) thread_ = std::thread([this] { Loop(); });
  }
  wake_.notify_one();
}

void MaskTasks::Finish(ThreadPool& pool) {
  std::unique_lock lock(mutex_);
  const auto left = static_cast<int64_t>(count_ - next_);
  if (left > 0) {
    lock.unlock();
    pool.ParallelFor(left, 1, [this](int64_t, int64_t, int) {
      std::unique_lock mine(mutex_);
      RunNext(mine);
    });
    lock.lock();
  }
  ended_.wait(lock, [this] { return next_ == count_ && running_ == 0; });
}

void MaskTasks::Abandon() {
  std::unique_lock lock(mutex_);
  next_ = count_;
  ended_.wait(lock, [this] { return running_ == 0; });
}

}  // namespace bakestone
