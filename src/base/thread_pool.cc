#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <cmath>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bakestone {
namespace {

// A worker spins this long for the next call before it sleeps. A decode step makes hundreds of calls
// a few microseconds apart; waking from a futex costs about 50 us, so spinning over the gap pays,
// and spinning longer would only take the core from somebody else.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Round to nearest even, denormals kept: the numerics contract's floating-point environment.
void SetFloatEnvironment() {
  std::fesetround(FE_TONEAREST);
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() & ~(_MM_FLUSH_ZERO_MASK | 0x0040u));
#elif defined(__aarch64__)
  // FZ, FZ16 and default NaN; and what the alternate behaviour of newer cores adds: FIZ, AH, NEP.
  constexpr uint64_t kOff = uint64_t{1} << 24 | uint64_t{1} << 19 | uint64_t{1} << 25 | 7;
  uint64_t control = 0;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  if ((control & kOff) != 0) asm volatile("msr fpcr, %0" : : "r"(control & ~kOff));
#endif
}

}  // namespace

struct ThreadPool::State {
  explicit State(int num_threads) : num_threads(num_threads) {}

  void Work(int thread) {
    while (true) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= units) return;
      function(context, begin, std::min(begin + grain, units), thread);
    }
  }

  void WorkerLoop(int thread) {
    SetFloatEnvironment();
    uint64_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && generation.load(std::memory_order_acquire) == seen; ++spin) {
        Pause();
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        sleepers.fetch_add(1);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
        sleepers.fetch_sub(1);
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      Work(thread);
      running.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  const int num_threads;
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int> running{0};
  int64_t units = 0, grain = 1;
  Function function = nullptr;
  const void* context = nullptr;
};

ThreadPool::ThreadPool(int num_threads) {
  if (num_threads < 1 || num_threads > 1024) {
    Throw(ErrorCode::kInvalidArgument, "threads: expected a number from 1 to 1024, found {}",
          num_threads);
  }
  state_ = std::make_unique<State>(num_threads);
  for (int thread = 1; thread < num_threads; ++thread) {
    state_->workers.emplace_back([this, thread] { state_->WorkerLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  {
    std::lock_guard lock(state_->mutex);
    state_->generation.fetch_add(1, std::memory_order_acq_rel);
  }
  state_->wake.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::num_threads() const noexcept { return state_->num_threads; }

void ThreadPool::Run(int64_t units, int64_t grain, Function function, const void* context) {
  if (units <= 0) return;
  State& state = *state_;
  SetFloatEnvironment();
  const int64_t share = (units + state.num_threads - 1) / state.num_threads;
  grain = grain > 0 ? std::min(grain, share) : share;
  if (state.num_threads == 1 || units == 1) {
    for (int64_t begin = 0; begin < units; begin += grain) {
      function(context, begin, std::min(begin + grain, units), 0);
    }
    return;
  }
  state.units = units;
  state.grain = grain;
  state.function = function;
  state.context = context;
  state.next.store(0, std::memory_order_relaxed);
  state.running.store(state.num_threads - 1, std::memory_order_relaxed);
  {
    // The lock orders this with a worker that is about to sleep; without sleepers it is uncontended.
    std::lock_guard lock(state.mutex);
    state.generation.fetch_add(1, std::memory_order_acq_rel);
  }
  if (state.sleepers.load() > 0) state.wake.notify_all();
  state.Work(0);
  for (int spin = 0; state.running.load(std::memory_order_acquire) > 0; ++spin) {
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

int UsableCores() {
  cpu_set_t set;
  int cores = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  std::ifstream quota_file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (quota_file >> quota >> period && quota != "max" && period > 0) {
    char* end = nullptr;
    const double value = std::strtod(quota.c_str(), &end);
    if (value > 0) cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(value / period))));
  }
  return cores;
}

}  // namespace bakestone
