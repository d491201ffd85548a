// States of heads through packed documents for training, forward and backward: what layers without
// keys and values compute (TrainStateRows in kernels/train_kernels.h). A state begins at zero with
// each document. The backward keeps every kChunk-th state and makes the others again, so its memory
// grows with rows / kChunk + kChunk states of one head a thread. Bits do not depend on the number
// of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "tensor/buffer.h"

namespace bakestone::ops {

struct TrainStateShape {
  int64_t rows = 0, heads = 0, key_dim = 0, value_dim = 0;
  // Heads whose parts come from the same place, and whose gradients add up there: they are taken
  // one after the other by one thread. Of `units` units each has heads / units of them: head i of
  // unit u is u * (heads / units) + i, or i * units + u if tiled.
  int64_t units = 0;
  bool tiled = false;
  std::span<const int32_t> document_begins;  // ascending, first is 0
};

// One row of one head, [key_dim] each but for v [value_dim].
struct StateRow {
  float *q, *k, *a, *b, *w, *v;
};
struct StateRowGradient {
  const float *q, *k, *a, *b, *w, *v;
};

class TrainState {
 public:
  using Fill = std::function<void(int64_t row, int64_t head, const StateRow& to)>;
  using Take = std::function<void(int64_t row, int64_t head, const StateRowGradient& gradient)>;

  // Keeps references. One thread at a time; keeps scratch between calls.
  TrainState(const TrainKernels& kernels, ThreadPool& pool);

  // y [rows, heads * value_dim], overwritten. fill is called by any thread.
  void Forward(const TrainStateShape& shape, const Fill& fill, float* y);
  // dy [rows, heads * value_dim]. take is called once for each row and head, rows of a document
  // from its last on.
  void Backward(const TrainStateShape& shape, const Fill& fill, const float* dy, const Take& take);

  int64_t bytes() const noexcept;

 private:
  struct Scratch {
    Buffer<float> rows, gradients, states, kept, d_state;
  };
  struct Head {
    int64_t begin, end, head;  // rows of a document
  };
  Scratch& Reserve(const TrainStateShape& shape, int64_t rows, bool backward, int thread);
  void ForwardHead(const TrainStateShape& shape, const Head& head, const Fill& fill, float* y,
                   Scratch& scratch) const;
  void BackwardHead(const TrainStateShape& shape, const Head& head, const Fill& fill,
                    const float* dy, const Take& take, Scratch& scratch) const;
  template <class Run>
  void ForHeads(const TrainStateShape& shape, bool backward, const Run& run);

  const TrainKernels& kernels_;
  ThreadPool& pool_;
  std::vector<Scratch> scratch_;  // one a thread
};

// The convolution of TrainConvolveArgs through packed documents: `rows` of them, all channels.
struct TrainConvolution {
  const float* taps;  // [count, channels]
  const float* bias;  // [channels] or null
  int64_t count, rows, channels;
  std::span<const int32_t> document_begins;
};
// x [rows, channels] with x_stride; out [rows, channels].
void TrainConvolve(const TrainKernels& kernels, ThreadPool& pool, const TrainConvolution& shape,
                   const uint16_t* x, int64_t x_stride, float* out);
// d [rows, channels], of out -> dx [rows, channels] of x.
void TrainConvolveBackward(const TrainKernels& kernels, ThreadPool& pool,
                           const TrainConvolution& shape, const float* d, float* dx);

}  // namespace bakestone::ops
