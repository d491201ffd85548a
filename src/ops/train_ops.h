// The optimizer's arithmetic over one flat f32 array (TrainLayout): what the training loop calls
// between passes. The bits do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"

namespace bakestone::ops {

struct AdamWOptions {
  double learning_rate = 2e-4;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;    // decoupled: params shrink by learning_rate * weight_decay
  double gradient_scale = 1;  // every gradient is multiplied by it: clipping, averaging
  int64_t step = 1;           // of this update, from 1: bias correction
};

// One update of params, m and v [size] by gradients [size]; a single pass over memory.
// Throws kInternal when the sizes differ or step < 1.
void AdamW(const TrainKernels& kernels, ThreadPool& pool, const AdamWOptions& options,
           std::span<float> params, std::span<float> m, std::span<float> v,
           std::span<const float> gradients);

// Euclidean norm, summed in double over chunks of 4096 in order. NaN or Inf in, NaN or Inf out.
double GradientNorm(const TrainKernels& kernels, ThreadPool& pool,
                    std::span<const float> gradients);

// The gradient_scale that clips a gradient of this norm to max_norm: min(1, max_norm / norm);
// 1 when max_norm <= 0 (no clipping).
double ClipScale(double norm, double max_norm);

}  // namespace bakestone::ops
