// A fixed team of threads that splits a range of independent work units. One caller at a time per
// pool; the caller works too. Results must not depend on the split: every unit is computed the same
// way whoever computes it. Every worker runs with round-to-nearest-even and denormals on.
#pragma once

#include <cstdint>
#include <memory>

namespace bakestone {

class ThreadPool {
 public:
  // num_threads >= 1 counts the caller. Throws kInvalidArgument outside [1, 1024].
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const noexcept;

  // Calls body(begin, end, thread) over disjoint ranges that cover [0, units); thread is in
  // [0, num_threads). grain: at most this many units a call, so that uneven work balances (0: one
  // equal share each). Returns when all is done. The body must not throw.
  template <class Body>
  void ParallelFor(int64_t units, int64_t grain, const Body& body) {
    Run(
        units, grain,
        [](const void* context, int64_t begin, int64_t end, int thread) {
          (*static_cast<const Body*>(context))(begin, end, thread);
        },
        &body);
  }

 private:
  using Function = void (*)(const void* context, int64_t begin, int64_t end, int thread);
  void Run(int64_t units, int64_t grain, Function function, const void* context);

  struct State;
  std::unique_ptr<State> state_;
};

// Cores this process may use: affinity and the cgroup's CPU quota taken into account, at least 1.
int UsableCores();

}  // namespace bakestone
