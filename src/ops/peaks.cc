#include "ops/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "base/rng.h"
#include "kernels/peak.h"
#include "tensor/buffer.h"

namespace bakestone::ops {
namespace {

using PeakLoop = decltype(PeakKernels::int8_dot);

double Seconds(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Buffer<uint8_t> Operands() {
  Buffer<uint8_t> operands(kPeakOperandBytes);
  for (int64_t i = 0; i < kPeakOperandBytes / 2; ++i) {
    operands[i] = static_cast<uint8_t>(Philox(1, 0, static_cast<uint64_t>(i))[0]);
  }
  auto* floats = reinterpret_cast<float*>(operands.data() + kPeakOperandBytes / 2);
  for (int64_t i = 0; i < kPeakOperandBytes / 8; ++i) {
    floats[i] = static_cast<float>(UniformDouble(1, 1, static_cast<uint64_t>(i))) - 0.5f;
  }
  return operands;
}

double Measure(PeakLoop kernel, ThreadPool& pool, const uint8_t* operands) {
  constexpr double kPassSeconds = 0.01;
  constexpr int kPasses = 8;
  float result[16];
  int64_t rounds = 1024;  // grown until a pass takes long enough for the clock
  while (true) {
    const auto start = std::chrono::steady_clock::now();
    kernel(rounds, operands, result);
    if (Seconds(start) >= kPassSeconds / 2) break;
    rounds *= 2;
  }
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<int64_t> products{0};
    const auto start = std::chrono::steady_clock::now();
    pool.ParallelFor(pool.num_threads(), 0, [&](int64_t begin, int64_t end, int) {
      float sums[16];
      for (int64_t i = begin; i < end; ++i) products += kernel(rounds, operands, sums);
    });
    best = std::max(best, static_cast<double>(products.load()) / Seconds(start));
  }
  return best;
}

}  // namespace

Peaks MeasurePeaks(const KernelTable& kernels, ThreadPool& pool) {
  const PeakKernels& peak = PeakKernelsOf(kernels.isa);
  const Buffer<uint8_t> operands = Operands();
  Peaks peaks{Measure(peak.int8_dot, pool, operands.data()),
              Measure(peak.float_fma, pool, operands.data())};
  peaks.bf16_per_second = peak.bf16_dot != nullptr ? Measure(peak.bf16_dot, pool, operands.data())
                                                   : peaks.float_per_second;
  return peaks;
}

}  // namespace bakestone::ops
