// How fast a loaded model computes, against what the machine allows: prompts of a length, decoding
// after a context, several sequences decoded together, and single matrix products. The tokens are
// drawn from a fixed seed. The time of none of this depends on the values, so the context of a
// decode is not computed but filled in.
//
// The limit of a figure is a roofline: the bytes that must be read over the measured read
// bandwidth, or the multiply-adds over the measured peaks, whichever takes longer. One thread at a
// time; the pool is its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/machine.h"
#include "base/thread_pool.h"
#include "model/exec.h"
#include "model/model.h"
#include "ops/peaks.h"

namespace bakestone {

struct SpeedOptions {
  int64_t repetitions = 0;  // of each figure; 0: up to 5, as long as they stay within `seconds`
  double seconds = 4;
  int64_t decode_tokens = 64;                // a repetition of a decode
  int64_t probe_bytes = int64_t{256} << 20;  // read to measure memory and to empty the caches
};

struct MachineLimits {
  double read_bandwidth_one = 0, read_bandwidth = 0;  // bytes per second: one thread, all
  ops::Peaks peaks;
};

// Multiply-adds by what is multiplied.
struct Macs {
  double int8 = 0, bf16 = 0, f32 = 0;
};

// Work of one token, whatever the context, and what each token of context adds.
struct TokenWork {
  int64_t weight_bytes = 0;   // panels that a decoded token reads, head included
  Macs layers, head;          // of their matrix products
  int64_t context_macs = 0;   // attention, bf16, per token of context
  int64_t context_bytes = 0;  // keys and values read per token of context
  int64_t state_bytes = 0;    // read and written with each, of layers that keep a state
};
TokenWork WorkOf(const Model& model);

struct Spread {
  double median = 0, least = 0, most = 0;
  int64_t count = 0;
};
Spread SpreadOf(std::vector<double> values);  // not empty

struct SpeedFigure {
  std::string name;          // "prefill-512", "decode-2048", "batch-8"
  Spread tokens_per_second;  // of all sequences together
  double limit = 0;          // tokens per second by the roofline
  double bandwidth_share =
      0;  // bytes read per second over the read bandwidth (each step reads weights once)
  double integer_share = 0;  // integer multiply-adds per second over the peak
};

// One kind of matrix in the model, multiplied with `rows` rows of activations; weights out of the
// caches.
struct ShapeFigure {
  std::string sites;  // "q o", "head"
  DType type = DType::kF32;
  int64_t n = 0, k = 0, rows = 0;
  int64_t bytes = 0, macs = 0;  // of one product
  double limit_seconds = 0;     // by the roofline
  Spread seconds;
};

class SpeedBench {
 public:
  // References must outlive it.
  SpeedBench(const Model& model, const KernelTable& kernels, ThreadPool& pool,
             SpeedOptions options);

  const MachineLimits& limits() const noexcept { return limits_; }
  // A prompt of `tokens`, in the steps that the engine makes, and the logits of its last row.
  // Throws kInvalidArgument beyond the model's context length, as Decode does.
  SpeedFigure Prefill(int64_t tokens);
  // One sequence after `context` tokens. At the end of the model's context it begins a little
  // earlier.
  SpeedFigure Decode(int64_t context);
  // Sequences decoded together, each from its first token on.
  SpeedFigure Batch(int64_t sequences);
  // Every kind of matrix with one row and with `rows`.
  std::vector<ShapeFigure> Shapes(int64_t rows);

 private:
  using States = std::vector<std::unique_ptr<SequenceState>>;
  template <class Body>
  std::vector<double> Repeat(const Body& body);
  void Step(std::span<const int32_t> tokens, States& states, bool logits);
  SpeedFigure DecodeTogether(std::string name, int64_t sequences, int64_t context);
  void SetLimits(SpeedFigure& figure, double bytes, const Macs& macs) const;
  double LimitSeconds(double bytes, const Macs& macs) const;
  ShapeFigure Shape(ShapeFigure figure, std::span<const Weight* const> weights);

  const Model& model_;
  ThreadPool& pool_;
  SpeedOptions options_;
  Exec exec_;
  TokenWork work_;
  MemoryProbe memory_;
  MachineLimits limits_;
  std::unique_ptr<KvPageAllocator> allocator_;
  std::vector<float> hidden_, logits_;
};

// Read bandwidth and peaks of `kernels` with the pool's threads; about a second.
MachineLimits MeasureMachine(const KernelTable& kernels, ThreadPool& pool, MemoryProbe& memory);

}  // namespace bakestone
