// Masks of answers that are held to a form, found while the step's forward pass runs: a thread of
// its own takes one answer after the other, and when the pass has ended the pool helps with what is
// left. What an answer may say depends on its own tokens only, so it does not matter who finds it
// out, or when. Internal to engine/; everything is called by the loop, the tasks by any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>

#include "base/thread_pool.h"

namespace bakestone {

class MaskTasks {
 public:
  MaskTasks() = default;
  ~MaskTasks();
  MaskTasks(const MaskTasks&) = delete;
  MaskTasks& operator=(const MaskTasks&) = delete;

  // Begins to call task(0), task(1), ... task(count - 1), each once, one after the other until
  // Finish. The task must not throw. What was started before has ended or was abandoned.
  void Start(size_t count, std::function<void(size_t)> task);
  // Returns when all have ended; those that nobody has begun are the pool's.
  void Finish(ThreadPool& pool);
  // Returns when no task runs; those that nobody has begun never are.
  void Abandon();

 private:
  bool RunNext(std::unique_lock<std::mutex>& lock);
  void Loop();

  std::mutex mutex_;
  std::condition_variable wake_, ended_;
  std::function<void(size_t)> task_;  // changes only while none runs
  size_t count_ = 0, next_ = 0, running_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // begun with the first task: many engines never have one
};

}  // namespace bakestone
