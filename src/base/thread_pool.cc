#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/control_groups.h"
#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bakestone {
namespace {

// A worker that finds no work spins (a decode step makes over a hundred calls a few microseconds
// apart, and waking from a futex costs about 50 us), then offers its core to others a few times,
// then sleeps.
constexpr int kSpins = 2000;
constexpr int kYields = 32;

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

// A call is open while there may be work to take. A worker enters an open call, and the caller
// waits for those that entered: one that the system has not scheduled yet holds nobody up. Every
// thread begins with a share of its own, which lies together in memory (the prefetchers' streams go
// on from chunk to chunk), and then helps the others with theirs.
struct ThreadPool::State {
  explicit State(int num_threads)
      : num_threads(num_threads), taken(static_cast<size_t>(num_threads)) {}

  static constexpr uint64_t kOpen = uint64_t{1}
                                    << 31;  // bits below: workers inside; above: call number

  uint64_t Call() const { return gate.load(std::memory_order_acquire) >> 32; }

  // The next chunk of a thread's share, or -1. A count from an earlier call is one of nothing
  // taken.
  int64_t Take(int owner, uint64_t call) {
    const int64_t first = owner * share;
    const int64_t chunks = (std::min(share, units - first) + grain - 1) / grain;
    std::atomic<uint64_t>& counter = taken[static_cast<size_t>(owner)].counter;
    uint64_t value = counter.load(std::memory_order_relaxed);
    while (true) {
      const int64_t chunk = value >> 32 == call ? static_cast<int64_t>(value & 0xFFFFFFFFu) : 0;
      if (chunk >= chunks) return -1;
      const uint64_t next = call << 32 | static_cast<uint64_t>(chunk + 1);
      if (counter.compare_exchange_weak(value, next, std::memory_order_relaxed)) {
        return first + chunk * grain;
      }
    }
  }

  void Work(int thread, uint64_t call) {
    for (int i = 0; i < num_threads; ++i) {
      const int owner = (thread + i) % num_threads;
      const int64_t limit = std::min((owner + 1) * share, units);
      for (int64_t begin; (begin = Take(owner, call)) >= 0;) {
        function(context, begin, std::min(begin + grain, limit), thread);
      }
    }
  }

  void WaitForCall(uint64_t seen) {
    for (int spin = 0; spin < kSpins; ++spin) {
      if (Call() != seen) return;
      Pause();
    }
    for (int i = 0; i < kYields && Call() == seen; ++i) std::this_thread::yield();
    if (Call() != seen) return;
    std::unique_lock lock(mutex);
    sleepers.fetch_add(1);
    wake.wait(lock, [&] { return Call() != seen; });
    sleepers.fetch_sub(1);
  }

  void WorkerLoop(int thread) {
    SetFloatEnvironment();
    uint64_t seen = 0;
    while (true) {
      WaitForCall(seen);
      if (stop.load(std::memory_order_acquire)) return;
      uint64_t value = gate.load(std::memory_order_acquire);
      bool entered = false;
      while (!entered && (value & kOpen) != 0) {
        entered = gate.compare_exchange_weak(value, value + 1, std::memory_order_acq_rel);
      }
      seen = value >> 32;
      if (!entered) continue;
      Work(thread, seen);
      gate.fetch_sub(1, std::memory_order_release);
    }
  }

  void Open() {
    {
      // The lock orders this with a worker that is about to sleep; without sleepers it is
      // uncontended.
      std::lock_guard lock(mutex);
      gate.store((Call() + 1) << 32 | kOpen, std::memory_order_release);
    }
    if (sleepers.load() > 0) wake.notify_all();
  }

  void Close() {
    gate.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spin = 0; (gate.load(std::memory_order_acquire) & (kOpen - 1)) != 0; ++spin) {
      if (spin < kSpins) {
        Pause();
      } else {
        std::this_thread::yield();
      }
    }
  }

  struct alignas(64) Taken {
    std::atomic<uint64_t> counter{0};  // call number << 32 | chunks of this thread's share taken
  };

  const int num_threads;
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<uint64_t> gate{0};
  std::vector<Taken> taken;
  // The open call: written while no worker is inside.
  int64_t units = 0, grain = 1, share = 1;
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
  state_->Open();
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
  state.share = share;
  state.grain = std::max(grain, share >> 31);
  state.function = function;
  state.context = context;
  state.Open();
  state.Work(0, state.Call());
  state.Close();
}

int UsableCores() {
  cpu_set_t set;
  int cores = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  if (const auto quota = ControlGroups().cpu_quota()) {
    cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(*quota))));
  }
  return cores;
}

}  // namespace bakestone
