#include "ops/train_state.h"

#include <algorithm>

#include "base/error.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kChunk = 16;  // rows: 17 states of 128 x 128 are 1.1 MB

// A chunk's rows as the kernels take them, in one buffer.
struct ChunkRows {
  float *q, *k, *a, *b, *w, *v, *s, *y;
  ChunkRows(float* data, int64_t keys, int64_t values) {
    for (float** part : {&q, &k, &a, &b, &w}) {
      *part = data;
      data += kChunk * keys;
    }
    for (float** part : {&v, &s, &y}) {
      *part = data;
      data += kChunk * values;
    }
  }
  static int64_t Size(int64_t keys, int64_t values) { return kChunk * (5 * keys + 3 * values); }
  StateRow Row(int64_t i, int64_t keys, int64_t values) const {
    return {q + i * keys, k + i * keys, a + i * keys, b + i * keys, w + i * keys, v + i * values};
  }
  TrainStateRows Rows(int64_t rows, int64_t keys, int64_t values) const {
    return {q, k, a, b, w, v, rows, keys, values};
  }
};

void Grow(Buffer<float>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<float>(size);
}

}  // namespace

TrainState::TrainState(const TrainKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), scratch_(static_cast<size_t>(pool.num_threads())) {}

int64_t TrainState::bytes() const noexcept {
  int64_t total = 0;
  for (const Scratch& scratch : scratch_) {
    total += scratch.rows.bytes() + scratch.gradients.bytes() + scratch.states.bytes() +
             scratch.kept.bytes() + scratch.d_state.bytes();
  }
  return total;
}

TrainState::Scratch& TrainState::Reserve(const TrainStateShape& shape, int64_t rows, bool backward,
                                         int thread) {
  Scratch& scratch = scratch_[static_cast<size_t>(thread)];
  const int64_t state = shape.key_dim * shape.value_dim;
  Grow(scratch.rows, ChunkRows::Size(shape.key_dim, shape.value_dim));
  Grow(scratch.states, backward ? (kChunk + 1) * state : state);
  if (!backward) return scratch;
  Grow(scratch.gradients, ChunkRows::Size(shape.key_dim, shape.value_dim));
  Grow(scratch.kept, (rows + kChunk - 1) / kChunk * state);
  Grow(scratch.d_state, state);
  return scratch;
}

void TrainState::ForwardHead(const TrainStateShape& shape, const Head& head, const Fill& fill,
                             float* y, Scratch& scratch) const {
  const int64_t keys = shape.key_dim, values = shape.value_dim;
  const ChunkRows chunk(scratch.rows.data(), keys, values);
  std::fill_n(scratch.states.data(), keys * values, 0.0f);
  for (int64_t row = head.begin; row < head.end; row += kChunk) {
    const int64_t rows = std::min(kChunk, head.end - row);
    for (int64_t i = 0; i < rows; ++i) fill(row + i, head.head, chunk.Row(i, keys, values));
    kernels_.state({.in = chunk.Rows(rows, keys, values),
                    .states = scratch.states.data(),
                    .states_stride = 0,
                    .s = chunk.s,
                    .y = chunk.y});
    for (int64_t i = 0; i < rows; ++i) {
      std::copy_n(chunk.y + i * values, values, y + ((row + i) * shape.heads + head.head) * values);
    }
  }
}

void TrainState::BackwardHead(const TrainStateShape& shape, const Head& head, const Fill& fill,
                              const float* dy, const Take& take, Scratch& scratch) const {
  const int64_t keys = shape.key_dim, values = shape.value_dim, state = keys * values;
  const ChunkRows chunk(scratch.rows.data(), keys, values),
      gradient(scratch.gradients.data(), keys, values);
  const auto fill_chunk = [&](int64_t row, int64_t rows) {
    for (int64_t i = 0; i < rows; ++i) fill(row + i, head.head, chunk.Row(i, keys, values));
  };
  // Every chunk's first state; then the chunks from the last on, their states made again.
  float* kept = scratch.kept.data();
  std::fill_n(kept, state, 0.0f);
  for (int64_t row = head.begin; row + kChunk < head.end; row += kChunk, kept += state) {
    fill_chunk(row, kChunk);
    std::copy_n(kept, state, kept + state);
    kernels_.state({.in = chunk.Rows(kChunk, keys, values),
                    .states = kept + state,
                    .states_stride = 0,
                    .s = chunk.s,
                    .y = chunk.y});
  }
  std::fill_n(scratch.d_state.data(), state, 0.0f);
  const int64_t chunks = (head.end - head.begin + kChunk - 1) / kChunk;
  for (int64_t at = chunks - 1; at >= 0; --at, kept -= state) {
    const int64_t row = head.begin + at * kChunk, rows = std::min(kChunk, head.end - row);
    fill_chunk(row, rows);
    std::copy_n(kept, state, scratch.states.data());
    kernels_.state({.in = chunk.Rows(rows, keys, values),
                    .states = scratch.states.data(),
                    .states_stride = state,
                    .s = chunk.s,
                    .y = chunk.y});
    for (int64_t i = 0; i < rows; ++i) {
      std::copy_n(dy + ((row + i) * shape.heads + head.head) * values, values,
                  gradient.y + i * values);
    }
    kernels_.state_backward({.in = chunk.Rows(rows, keys, values),
                             .states = scratch.states.data(),
                             .states_stride = state,
                             .s = chunk.s,
                             .dy = gradient.y,
                             .d_state = scratch.d_state.data(),
                             .dq = gradient.q,
                             .dk = gradient.k,
                             .da = gradient.a,
                             .db = gradient.b,
                             .dw = gradient.w,
                             .dv = gradient.v,
                             .ds = gradient.s});
    for (int64_t i = rows - 1; i >= 0; --i) {
      const StateRow out = gradient.Row(i, keys, values);
      take(row + i, head.head, {out.q, out.k, out.a, out.b, out.w, out.v});
    }
  }
}

template <class Run>
void TrainState::ForHeads(const TrainStateShape& shape, bool backward, const Run& run) {
  BAKESTONE_CHECK(shape.units > 0 && shape.heads % shape.units == 0 &&
                  !shape.document_begins.empty());
  const int64_t each = shape.heads / shape.units;
  const auto documents = std::ssize(shape.document_begins);
  pool_.ParallelFor(documents * shape.units, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t document = unit / shape.units, own = unit % shape.units;
      const int64_t first = shape.document_begins[static_cast<size_t>(document)];
      const int64_t last = document + 1 < documents
                               ? shape.document_begins[static_cast<size_t>(document + 1)]
                               : shape.rows;
      Scratch& scratch = Reserve(shape, last - first, backward, thread);
      for (int64_t i = 0; i < each; ++i) {
        run(Head{first, last, shape.tiled ? i * shape.units + own : own * each + i}, scratch);
      }
    }
  });
}

void TrainState::Forward(const TrainStateShape& shape, const Fill& fill, float* y) {
  ForHeads(shape, false,
           [&](const Head& head, Scratch& scratch) { ForwardHead(shape, head, fill, y, scratch); });
}

void TrainState::Backward(const TrainStateShape& shape, const Fill& fill, const float* dy,
                          const Take& take) {
  ForHeads(shape, true, [&](const Head& head, Scratch& scratch) {
    BackwardHead(shape, head, fill, dy, take, scratch);
  });
}

namespace {

// body(document's first row, end, channel range), channels split over the threads.
template <class Body>
void ForChannels(ThreadPool& pool, const TrainConvolution& shape, const Body& body) {
  constexpr int64_t kChannels = 64;
  const auto documents = std::ssize(shape.document_begins);
  const int64_t blocks = (shape.channels + kChannels - 1) / kChannels;
  pool.ParallelFor(documents * blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t document = unit / blocks, channel = unit % blocks * kChannels;
      const int64_t first = shape.document_begins[static_cast<size_t>(document)];
      const int64_t last = document + 1 < documents
                               ? shape.document_begins[static_cast<size_t>(document + 1)]
                               : shape.rows;
      body(first, last, channel, std::min(channel + kChannels, shape.channels));
    }
  });
}

}  // namespace

void TrainConvolve(const TrainKernels& kernels, ThreadPool& pool, const TrainConvolution& shape,
                   const uint16_t* x, int64_t x_stride, float* out) {
  const TrainConvolveArgs args = {.taps = shape.taps,
                                  .bias = shape.bias,
                                  .count = shape.count,
                                  .channels = shape.channels,
                                  .x = x,
                                  .x_stride = x_stride,
                                  .d = nullptr,
                                  .out = out};
  ForChannels(pool, shape, [&](int64_t first, int64_t last, int64_t begin, int64_t end) {
    kernels.convolve(args, first, last, begin, end);
  });
}

void TrainConvolveBackward(const TrainKernels& kernels, ThreadPool& pool,
                           const TrainConvolution& shape, const float* d, float* dx) {
  const TrainConvolveArgs args = {.taps = shape.taps,
                                  .bias = nullptr,
                                  .count = shape.count,
                                  .channels = shape.channels,
                                  .x = nullptr,
                                  .x_stride = 0,
                                  .d = d,
                                  .out = dx};
  ForChannels(pool, shape, [&](int64_t first, int64_t last, int64_t begin, int64_t end) {
    kernels.convolve_backward(args, first, last, begin, end);
  });
}

}  // namespace bakestone::ops
