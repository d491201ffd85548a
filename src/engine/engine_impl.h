// What an engine is made of: the loop's part, which one thread has, and the part that is shared
// under the lock. Internal to engine/.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/fair_queue.h"
#include "engine/sequence.h"
#include "engine/step_cost.h"
#include "engine/step_runner.h"

namespace bakestone {

struct Engine::Impl {
  using Clock = std::chrono::steady_clock;

  Impl(std::shared_ptr<const Model> model_in, const KernelTable& kernels, ThreadPool& threads,
       EngineOptions options_in);
  ~Impl();

  std::vector<RequestId> Submit(std::vector<GenerationRequest> requests);
  bool Full(int64_t more_requests, int64_t more_tokens) const;  // under the lock
  void Loop();

  // ---- engine_admission.cc ----
  bool WaitForWork();
  void TakeCancelled(std::unique_lock<std::mutex>& lock);
  void Admit();
  void Start(std::unique_ptr<Sequence> sequence);
  void MakeRoom();
  bool MakeRoomFor(const Sequence& next, bool of_background_only);
  FairQueue::Verdict Judge(const Sequence& next) const;

  // ---- engine_steps.cc ----
  std::vector<Work> Plan() const;
  void PlanPrompts(const StepSize& answers, std::vector<Work>& works) const;
  void RunStep();
  void RunAlone(std::vector<Work>& works);
  void Retire();
  void End(Sequence& sequence, FinishReason reason, std::optional<Error> error);

  const std::shared_ptr<const Model> model;
  const EngineOptions options;
  const int32_t vocab_size;
  int64_t max_context = 0;
  StatePool pool;                                  // the loop's
  StepRunner runner;                               // the loop's
  Speculator speculator;                           // the loop's
  std::vector<std::unique_ptr<Sequence>> running;  // the loop's; oldest first
  int64_t reserved_pages = 0;                      // the loop's
  StepCost cost, probed;                           // the loop's; probed never changes

  mutable std::mutex mutex;
  std::condition_variable wake, idle;
  FairQueue waiting;
  std::set<RequestId> cancels;
  RequestId next_id = 1;
  bool stopping = false, draining = false, cut = false;
  EngineMetrics metrics;  // running, waiting... kept current
  Clock::time_point last_progress;
  std::thread thread;
};

}  // namespace bakestone
