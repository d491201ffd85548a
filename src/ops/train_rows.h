// The row operations of training, split over threads by rows. Arguments, formulas and what overwrites
// or accumulates: kernels/train_kernels.h.
#pragma once

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"

namespace bakestone::ops {

void TrainNorm(const TrainKernels& kernels, ThreadPool& pool, const TrainNormArgs& args);
void TrainNormBackward(const TrainKernels& kernels, ThreadPool& pool,
                       const TrainNormBackwardArgs& args);
void TrainScaleRows(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* y,
                    const float* weight, int64_t rows, int64_t dim, uint16_t* h);
void TrainToBf16(const TrainKernels& kernels, ThreadPool& pool, const float* x, uint16_t* out,
                 int64_t size);
// x += y
void TrainAddBf16(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* y, float* x,
                  int64_t size);
// Split over columns [0, cols).
void TrainColumnDot(const TrainKernels& kernels, ThreadPool& pool, const TrainColumnDotArgs& args,
                    int64_t cols);
// x [rows, cols] -> out [cols, out_stride], zero from rows on.
void TrainTranspose(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x, int64_t stride,
                    int64_t rows, int64_t cols, int64_t out_stride, uint16_t* out);
void TrainRope(const TrainKernels& kernels, ThreadPool& pool, const TrainRopeArgs& args);
void TrainSwiGlu(const TrainKernels& kernels, ThreadPool& pool, const TrainSwiGluArgs& args);
void TrainSwiGluBackward(const TrainKernels& kernels, ThreadPool& pool, const TrainSwiGluArgs& args);
void TrainLoss(const TrainKernels& kernels, ThreadPool& pool, const TrainLossArgs& args);

}  // namespace bakestone::ops
