// What a server asks of whatever computes answers behind a bounded queue: the engine, whose model
// writes, and the embedding loop. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>

#include "model/model.h"

namespace bakestone {

struct LoopMetrics {
  int64_t running = 0, waiting = 0, waiting_tokens = 0;
  int64_t submitted = 0, finished = 0, cancelled = 0, failed = 0, refused = 0;
  int64_t prompt_tokens = 0, steps = 0;
  double busy_seconds = 0;
  double seconds_since_progress = 0;  // since the last step, or since work arrived; 0 when idle
};

class ServingLoop {
 public:
  virtual ~ServingLoop() = default;

  // True when one more request would be refused: lets a server say 429 before any work.
  virtual bool QueueFull() const = 0;
  virtual bool Draining() const = 0;

  // Refuses new requests and waits until all are answered, or cancels the rest after the deadline
  // (their last event carries kUnavailable). Returns true if none had to be cancelled.
  virtual bool Drain(std::chrono::steady_clock::duration deadline) = 0;

  virtual LoopMetrics Load() const = 0;
  virtual const Model& model() const noexcept = 0;
  virtual int64_t max_context()
      const noexcept = 0;  // tokens of one request's prompt and answer, or of one text
};

}  // namespace bakestone
