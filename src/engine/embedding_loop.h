// Embeds for many requests at once. One thread runs one loop: a step takes texts of several
// requests, computes them in one pass (engine/embedder.h), and hands each request its vectors. A
// text's vector depends on the weights and its tokens only (docs/numerics.md): not on what else is
// in the step.
//
// Whose text is next: that of the tenant for which fewest tokens were computed, and within it of
// the request (fair_shares.h). So a request of one text is not held up by one of thousands. All
// methods are thread-safe. The thread pool is used by the loop only, and by nobody else meanwhile.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "engine/serving_loop.h"
#include "kernels/kernel_table.h"

namespace bakestone {

// The vectors of a request's next texts, in their order. Exactly one event of a request is the
// last.
struct EmbeddingEvent {
  std::vector<std::vector<float>> vectors;  // each of embedding_width() numbers and length 1
  bool last = false;
  bool cancelled = false;      // only with last: some vectors are missing
  std::optional<Error> error;  // the same
};

struct EmbeddingRequest {
  std::vector<std::vector<int32_t>> texts;  // token ids, special ones included
  std::string tenant = {};                  // whose it is
  // Called on the loop's thread, in order; must be quick, must not throw, and may call nothing of
  // the loop but Cancel. May be called before Submit returns.
  std::function<void(EmbeddingEvent&&)> sink = {};
};

struct EmbeddingLoopOptions {
  int64_t max_context = 8192;  // tokens of a text, if the model allows them: a step computes it
                               // whole, which takes memory
  int64_t max_request_tokens = 300'000;  // of one request's texts together
  int64_t max_requests = 256;            // that are there at the same time
  int64_t max_texts =
      16'384;  // of theirs together: vectors are kept until a request's last is there
  int64_t max_tokens = 1 << 20;    // of theirs that are not computed yet
  double max_request_seconds = 0;  // from Submit to the last vector; then kUnavailable. 0: no limit
};

class EmbeddingLoop : public ServingLoop {
 public:
  using Id = uint64_t;

  // Keeps the model alive, of any kind; kernels and pool must outlive the loop. Throws
  // kInvalidArgument for an option.
  EmbeddingLoop(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool,
                EmbeddingLoopOptions options = {});
  ~EmbeddingLoop() override;  // cancels what is left

  // Throws kInvalidArgument ("input[3]: expected..."): no texts, one without tokens or with an id
  // outside the vocabulary; kOutOfMemory for one that is too long, or more texts or tokens than a
  // request may have; kUnavailable when the queue is full or draining.
  Id Submit(EmbeddingRequest request);
  // Takes effect between steps; the sink then gets its last event. Unknown and finished ids are
  // ignored.
  void Cancel(Id id);

  bool QueueFull() const override;
  bool Draining() const override;
  bool Drain(std::chrono::steady_clock::duration deadline) override;
  LoopMetrics Load() const override;
  const Model& model() const noexcept override;
  int64_t max_context() const noexcept override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bakestone
