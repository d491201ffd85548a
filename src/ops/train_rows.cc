#include "ops/train_rows.h"

#include <algorithm>

#include "base/error.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kRows = 16;  // a call: at 576 wide, some 10 us

template <class T>
T* At(T* data, int64_t offset) {
  return data == nullptr ? nullptr : data + offset;
}

TrainSwiGluArgs Part(const TrainSwiGluArgs& args, int64_t begin, int64_t end) {
  return {.gate_up = args.gate_up + begin * 2 * args.dim,
          .d_act = At(args.d_act, begin * args.dim),
          .rows = end - begin,
          .dim = args.dim,
          .act = At(args.act, begin * args.dim),
          .d_gate_up = At(args.d_gate_up, begin * 2 * args.dim)};
}

}  // namespace

void TrainNorm(const TrainKernels& kernels, ThreadPool& pool, const TrainNormArgs& args) {
  BAKESTONE_CHECK(args.dim > 0);
  pool.ParallelFor(args.rows, kRows, [&](int64_t begin, int64_t end, int) {
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
  pool.ParallelFor(args.rows, kRows, [&](int64_t begin, int64_t end, int) {
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
                    const float* weight, int64_t rows, int64_t dim, uint16_t* h) {
  pool.ParallelFor(rows, kRows, [&](int64_t begin, int64_t end, int) {
    kernels.scale_rows(y + begin * dim, weight, end - begin, dim, h + begin * dim);
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

void TrainTranspose(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x, int64_t stride,
                    int64_t rows, int64_t cols, int64_t out_stride, uint16_t* out) {
  constexpr int64_t kColumns = 32;
  pool.ParallelFor((cols + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end, int) {
    kernels.transpose(x, stride, rows, out, out_stride, begin * kColumns,
                      std::min(end * kColumns, cols));
  });
}

void TrainRope(const TrainKernels& kernels, ThreadPool& pool, const TrainRopeArgs& args) {
  BAKESTONE_CHECK(args.dim % 2 == 0 && args.dim <= args.head_dim);
  pool.ParallelFor(args.rows, kRows, [&](int64_t begin, int64_t end, int) {
    TrainRopeArgs part = args;
    part.x += begin * args.x_stride;
    part.out += begin * args.out_stride;
    part.cosines = At(args.cosines, begin * (args.dim / 2));
    part.sines = At(args.sines, begin * (args.dim / 2));
    part.rows = end - begin;
    kernels.rope(part);
  });
}

void TrainSwiGlu(const TrainKernels& kernels, ThreadPool& pool, const TrainSwiGluArgs& args) {
  pool.ParallelFor(args.rows, kRows, [&](int64_t begin, int64_t end, int) {
    kernels.swiglu(Part(args, begin, end));
  });
}

void TrainSwiGluBackward(const TrainKernels& kernels, ThreadPool& pool,
                         const TrainSwiGluArgs& args) {
  BAKESTONE_CHECK(args.d_act != nullptr && args.d_gate_up != nullptr);
  pool.ParallelFor(args.rows, kRows, [&](int64_t begin, int64_t end, int) {
    kernels.swiglu_backward(Part(args, begin, end));
  });
}

void TrainLoss(const TrainKernels& kernels, ThreadPool& pool, const TrainLossArgs& args) {
  BAKESTONE_CHECK(args.vocab > 0 && args.stride >= args.vocab);
  pool.ParallelFor(args.rows, 1, [&](int64_t begin, int64_t end, int) {
    TrainLossArgs part = args;
    part.logits += begin * args.stride;
    part.base = At(args.base, begin * args.stride);
    part.targets += begin;
    part.factors += begin;
    part.nll += begin;
    part.kl = At(args.kl, begin);
    part.correct += begin;
    part.d_logits = At(args.d_logits, begin * args.d_stride);
    part.rows = end - begin;
    kernels.loss(part);
  });
}

}  // namespace bakestone::ops
