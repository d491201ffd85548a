// The row operations of training, split over threads by rows. Arguments, formulas and what
// overwrites or accumulates: kernels/train_kernels.h.
#pragma once

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"

namespace bakestone::ops {

void TrainNorm(const TrainKernels& kernels, ThreadPool& pool, const TrainNormArgs& args);
void TrainNormBackward(const TrainKernels& kernels, ThreadPool& pool,
                       const TrainNormBackwardArgs& args);
void TrainScaleRows(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* y,
                    const float* weight, const float* bias, int64_t rows, int64_t dim, uint16_t* h);
void TrainToBf16(const TrainKernels& kernels, ThreadPool& pool, const float* x, uint16_t* out,
                 int64_t size);
// x += y
void TrainAddBf16(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* y, float* x,
                  int64_t size);
// Split over columns [0, cols).
void TrainColumnDot(const TrainKernels& kernels, ThreadPool& pool, const TrainColumnDotArgs& args,
                    int64_t cols);
// x [rows, cols] -> out [cols, out_stride], zero from rows on.
void TrainTranspose(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x,
                    int64_t stride, int64_t rows, int64_t cols, int64_t out_stride, uint16_t* out);
// RMS norm of groups of `width` channels that lie side by side in a row: heads, or all heads as one
// group. In place: x = x / rms * weight; y [rows, groups * width] x / rms, inverse [rows, groups] 1
// / rms.
struct TrainGroupNormArgs {
  float* x;  // [rows, stride]
  int64_t stride, rows, groups, width;
  const float* weight;  // [width]
  float eps;
  uint16_t* y;
  float* inverse;
};
void TrainGroupNorm(ThreadPool& pool, const TrainGroupNormArgs& args);
// d [rows, stride], in: of what the norm gave; out: of what it took. The weight is frozen.
struct TrainGroupNormBackwardArgs {
  uint16_t* d;
  int64_t stride, rows, groups, width;
  const float* weight;
  const uint16_t* y;
  const float* inverse;
};
void TrainGroupNormBackward(ThreadPool& pool, const TrainGroupNormBackwardArgs& args);
// x *= factor, of rows [0, rows) of width channels; stride between them.
void TrainScale(ThreadPool& pool, float factor, int64_t rows, int64_t width, int64_t stride,
                float* x);
void TrainRope(const TrainKernels& kernels, ThreadPool& pool, const TrainRopeArgs& args);
// act, and the gradients of gate and up, as TrainActivationArgs names them: on the caller's thread,
// or with rows split over a pool.
void TrainActivate(const TrainKernels& kernels, TrainGate gate, const TrainActivationArgs& args);
void TrainActivate(const TrainKernels& kernels, ThreadPool& pool, TrainGate gate,
                   const TrainActivationArgs& args);
void TrainActivateBackward(const TrainKernels& kernels, TrainGate gate,
                           const TrainActivationArgs& args);
void TrainActivateBackward(const TrainKernels& kernels, ThreadPool& pool, TrainGate gate,
                           const TrainActivationArgs& args);
// `rows` rows from `row` on of `channels` channels from `channel` on.
TrainActivationArgs ActivationPart(const TrainActivationArgs& args, int64_t row, int64_t rows,
                                   int64_t channel, int64_t channels);

}  // namespace bakestone::ops
