#include "ops/train_ops.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kChunk = 4096;  // 16 KiB of each array: four of them fit L2 beside each other

}  // namespace

void AdamW(const TrainKernels& kernels, ThreadPool& pool, const AdamWOptions& options,
           std::span<float> params, std::span<float> m, std::span<float> v,
           std::span<const float> gradients) {
  const auto size = static_cast<int64_t>(params.size());
  BAKESTONE_CHECK(m.size() == params.size() && v.size() == params.size() &&
                  gradients.size() == params.size() && options.step >= 1);
  const auto step = static_cast<double>(options.step);
  const auto m_correction = static_cast<float>(1 / (1 - std::pow(options.beta1, step)));
  const auto v_correction = static_cast<float>(1 / (1 - std::pow(options.beta2, step)));
  pool.ParallelFor((size + kChunk - 1) / kChunk, 16, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kChunk;
    const int64_t count = std::min(end * kChunk, size) - first;
    kernels.adamw({.params = params.data() + first,
                   .m = m.data() + first,
                   .v = v.data() + first,
                   .gradients = gradients.data() + first,
                   .size = count,
                   .rate = static_cast<float>(options.learning_rate),
                   .beta1 = static_cast<float>(options.beta1),
                   .beta2 = static_cast<float>(options.beta2),
                   .eps = static_cast<float>(options.epsilon),
                   .weight_decay = static_cast<float>(options.weight_decay),
                   .gradient_scale = static_cast<float>(options.gradient_scale),
                   .m_correction = m_correction,
                   .v_correction = v_correction});
  });
}

double GradientNorm(const TrainKernels& kernels, ThreadPool& pool,
                    std::span<const float> gradients) {
  const auto size = static_cast<int64_t>(gradients.size());
  const int64_t chunks = (size + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<size_t>(chunks));
  pool.ParallelFor(chunks, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      sums[static_cast<size_t>(i)] =
          kernels.sum_squares(gradients.data() + i * kChunk, std::min(kChunk, size - i * kChunk));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

double ClipScale(double norm, double max_norm) {
  return max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0;
}

}  // namespace bakestone::ops
