// Serves one model to many requests at once. One thread runs one loop: each step takes every
// running request's next tokens (a decode is one token, a prompt is cut into chunks), computes them
// in one pass, samples, and tells the sinks. An answer depends on the weights, the adapter, the
// prompt and the parameters only (docs/numerics.md): not on neighbours, chunks, cache hits or
// threads.
//
// A request is admitted when the pool can hold its prompt and all of its answer. Those that wait
// stand in a bounded queue, fair between tenants and their adapters (fair_queue.h); beyond it
// Submit refuses at once. For a tenant that has nothing running the youngest request of one that
// has much is suspended, and goes on later where it was; and so is one in the background for any
// that is not. All methods are thread-safe. The thread pool is used by the loop only, and by nobody
// else meanwhile.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "engine/request.h"
#include "engine/serving_loop.h"
#include "engine/speculation.h"
#include "engine/state_pool.h"
#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

struct EngineOptions {
  int64_t kv_bytes =
      int64_t{512} << 20;  // limit of keys and values, layers' states and the prefix cache included
  KvType kv_type = KvType::kBf16;
  Precision precision = Precision::kServe;
  bool prefix_cache = true;
  int64_t max_context = 0;  // tokens of one sequence; 0: what the model and the pool allow
  int64_t default_max_tokens = 2048;  // of a request that names none: memory is set aside for them
  int64_t max_running = 32;           // requests in one step
  int64_t max_queued_requests = 256;
  int64_t max_queued_tokens = 1 << 20;  // prompt tokens that wait
  int64_t max_step_tokens = 512;        // rows of a step, at least max_running + 1
  int64_t fixed_chunk = 0;              // prompt tokens of a step; 0: as many as keep the step near
  double target_step_seconds =
      0.1;             //   this long while others are being answered; 0: twice what they alone take
  bool probe = false;  // measure what steps cost before the first request, instead of guessing
  double max_request_seconds =
      0;  // from Submit to the answer's end; then kUnavailable. 0: no limit
  SpeculationOptions speculation = {};  // a draft model's keys and values come out of kv_bytes
};

struct EngineMetrics : LoopMetrics {
  int64_t suspended = 0, cached_tokens = 0, completion_tokens = 0;
  int64_t proposed_tokens = 0, accepted_tokens = 0;  // by speculation, of answers that have ended
  StatePoolStats pool;
};

using RequestId = uint64_t;

class Engine : public ServingLoop {
 public:
  // Keeps the model alive; kernels and pool must outlive the engine. Throws kInvalidArgument, or
  // kOutOfMemory when kv_bytes cannot hold one page.
  Engine(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool,
         EngineOptions options = {});
  ~Engine() override;  // cancels what is left

  // All or none. Throws kInvalidArgument naming the field; kOutOfMemory when prompt + max_tokens
  // can never fit the context; kUnavailable when the queue is full or the engine is draining. A
  // request without seed should have been given one by the caller (RandomSeed).
  std::vector<RequestId> Submit(std::vector<GenerationRequest> requests);
  RequestId Submit(GenerationRequest request);

  // Takes effect between steps; the sink then gets its last event. Unknown and finished ids are
  // ignored.
  void Cancel(RequestId id);

  bool QueueFull() const override;
  bool Draining() const override;
  bool Drain(std::chrono::steady_clock::duration deadline) override;

  EngineMetrics Metrics() const;
  LoopMetrics Load() const override { return Metrics(); }
  const Model& model() const noexcept override;
  int64_t max_context() const noexcept override;  // prompt + answer, in tokens
  // Seconds that a step takes in which so many requests get their next token at a short context: as
  // the probe found it; 0 without one.
  double ProbedStepSeconds(int64_t answering) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A seed from the operating system, for requests that name none.
uint64_t RandomSeed();

// Submits and waits: for programs that answer one question at a time. The result has all the text
// and tokens of the answer in one event. on_text sees each piece as it comes, and an empty one now
// and then while there is none; returning false cancels. Throws the request's error.
Event Generate(Engine& engine, GenerationRequest request,
               const std::function<bool(const std::string&)>& on_text = nullptr);

}  // namespace bakestone
