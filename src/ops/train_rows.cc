#include "ops/train_rows.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/math.h"
#include "tensor/half.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kRowsATime = 16;  // a call: at 576 wide, some 10 us

template <class T>
T* At(T* data, int64_t offset) {
  return data == nullptr ? nullptr : data + offset;
}

}  // namespace

void TrainNorm(const TrainKernels& kernels, ThreadPool& pool, const TrainNormArgs& args) {
  BAKESTONE_CHECK(args.dim > 0);
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    TrainNormArgs part = args;
    part.x += begin * args.dim;
    part.y = At(args.y, begin * args.dim);
    part.h = At(args.h, begin * args.dim);
    part.inverse += begin;
    part.rows = end - begin;
    kernels.norm(part);
  });
}

void TrainNormBackward(const TrainKernels& kernels, ThreadPool& pool,
                       const TrainNormBackwardArgs& args) {
  BAKESTONE_CHECK(args.dim > 0);
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    TrainNormBackwardArgs part = args;
    part.dh += begin * args.dim;
    part.y += begin * args.dim;
    part.inverse += begin;
    part.dx += begin * args.dim;
    part.dx_bf16 = At(args.dx_bf16, begin * args.dim);
    part.rows = end - begin;
    kernels.norm_backward(part);
  });
}

void TrainScaleRows(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* y,
                    const float* weight, const float* bias, int64_t rows, int64_t dim,
                    uint16_t* h) {
  pool.ParallelFor(rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    kernels.scale_rows(y + begin * dim, weight, bias, end - begin, dim, h + begin * dim);
  });
}

void TrainToBf16(const TrainKernels& kernels, ThreadPool& pool, const float* x, uint16_t* out,
                 int64_t size) {
  constexpr int64_t kChunk = 8192;
  pool.ParallelFor((size + kChunk - 1) / kChunk, 4, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kChunk;
    kernels.to_bf16(x + first, out + first, std::min(end * kChunk, size) - first);
  });
}

void TrainAddBf16(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* y, float* x,
                  int64_t size) {
  constexpr int64_t kElements = 16384;
  pool.ParallelFor((size + kElements - 1) / kElements, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kElements;
    kernels.add_bf16(y + first, x + first, std::min(end * kElements, size) - first);
  });
}

void TrainColumnDot(const TrainKernels& kernels, ThreadPool& pool, const TrainColumnDotArgs& args,
                    int64_t cols) {
  constexpr int64_t kColumns = 32;  // a cache line of bf16, two of f32
  pool.ParallelFor((cols + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end, int) {
    kernels.column_dot(args, begin * kColumns, std::min(end * kColumns, cols));
  });
}

void TrainTranspose(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x,
                    int64_t stride, int64_t rows, int64_t cols, int64_t out_stride, uint16_t* out) {
  constexpr int64_t kColumns = 32;
  pool.ParallelFor((cols + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end, int) {
    kernels.transpose(x, stride, rows, out, out_stride, begin * kColumns,
                      std::min(end * kColumns, cols));
  });
}

namespace {

// The sum of term(0) .. term(n - 1) in 16 lanes, which vector units take.
template <class Term>
float LaneSum(int64_t n, const Term& term) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 16] += term(i);
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

}  // namespace

void TrainGroupNorm(ThreadPool& pool, const TrainGroupNormArgs& args) {
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin * args.groups; at < end * args.groups; ++at) {
      float* x = args.x + at / args.groups * args.stride + at % args.groups * args.width;
      const float mean = LaneSum(args.width, [&](int64_t i) { return x[i] * x[i]; }) /
                         static_cast<float>(args.width);
      const float inverse = 1.0f / std::sqrt(mean + args.eps);
      args.inverse[at] = inverse;
      uint16_t* y = args.y + at * args.width;
      for (int64_t i = 0; i < args.width; ++i) {
        y[i] = FloatToBF16(x[i] * inverse);
        x[i] = x[i] * inverse * args.weight[i];
      }
    }
  });
}

void TrainGroupNormBackward(ThreadPool& pool, const TrainGroupNormBackwardArgs& args) {
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin * args.groups; at < end * args.groups; ++at) {
      uint16_t* d = args.d + at / args.groups * args.stride + at % args.groups * args.width;
      const uint16_t* y = args.y + at * args.width;
      const auto g = [&](int64_t i) { return BF16ToFloat(d[i]) * args.weight[i]; };
      const float mean = LaneSum(args.width, [&](int64_t i) { return g(i) * BF16ToFloat(y[i]); }) /
                         static_cast<float>(args.width);
      for (int64_t i = 0; i < args.width; ++i) {
        d[i] = FloatToBF16(args.inverse[at] * (g(i) - BF16ToFloat(y[i]) * mean));
      }
    }
  });
}

void TrainScale(ThreadPool& pool, float factor, int64_t rows, int64_t width, int64_t stride,
                float* x) {
  pool.ParallelFor(rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < width; ++i) x[row * stride + i] *= factor;
    }
  });
}

void TrainRope(const TrainKernels& kernels, ThreadPool& pool, const TrainRopeArgs& args) {
  BAKESTONE_CHECK(args.dim % 2 == 0 && args.dim <= args.head_dim);
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    TrainRopeArgs part = args;
    part.x += begin * args.x_stride;
    part.out += begin * args.out_stride;
    part.cosines = At(args.cosines, begin * (args.dim / 2));
    part.sines = At(args.sines, begin * (args.dim / 2));
    part.rows = end - begin;
    kernels.rope(part);
  });
}

TrainActivationArgs ActivationPart(const TrainActivationArgs& args, int64_t row, int64_t rows,
                                   int64_t channel, int64_t channels) {
  const int64_t at = row * args.stride + channel;
  TrainActivationArgs part = args;
  part.gate += at;
  part.up += at;
  part.act = At(args.act, row * args.act_stride + channel);
  part.d_act = At(args.d_act, row * args.d_act_stride + channel);
  part.d_gate = At(args.d_gate, at);
  part.d_up = At(args.d_up, at);
  part.rows = rows;
  part.dim = channels;
  return part;
}

void TrainActivate(const TrainKernels& kernels, TrainGate gate, const TrainActivationArgs& args) {
  BAKESTONE_CHECK(args.act != nullptr);
  kernels.activate[static_cast<size_t>(gate)](args);
}

void TrainActivateBackward(const TrainKernels& kernels, TrainGate gate,
                           const TrainActivationArgs& args) {
  BAKESTONE_CHECK(args.d_act != nullptr && args.d_gate != nullptr && args.d_up != nullptr);
  kernels.activate_backward[static_cast<size_t>(gate)](args);
}

void TrainActivate(const TrainKernels& kernels, ThreadPool& pool, TrainGate gate,
                   const TrainActivationArgs& args) {
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    TrainActivate(kernels, gate, ActivationPart(args, begin, end - begin, 0, args.dim));
  });
}

void TrainActivateBackward(const TrainKernels& kernels, ThreadPool& pool, TrainGate gate,
                           const TrainActivationArgs& args) {
  pool.ParallelFor(args.rows, kRowsATime, [&](int64_t begin, int64_t end, int) {
    TrainActivateBackward(kernels, gate, ActivationPart(args, begin, end - begin, 0, args.dim));
  });
}

}  // namespace bakestone::ops
