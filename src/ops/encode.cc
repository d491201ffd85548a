#include "ops/encode.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/pack.h"
#include "tensor/buffer.h"
#include "tensor/dequantize.h"
#include "tensor/half.h"

namespace bakestone::ops {
namespace {

// Rows that a thread decodes and encodes in one go: enough to fill the lanes, little enough for its
// cache.
constexpr int64_t kValuesAtOnce = 1 << 15;

float LargestOf(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kBF16:
      return std::numeric_limits<float>::max();
    case DType::kF16:
      return 65504.0f;
    default:
      return 32752.0f;
  }
}

// The largest magnitude; NaN or infinity where one is among them. Without the sign, the bits of
// floats are in the order of their magnitudes, and NaN is above infinity.
float Magnitude(const float* x, int64_t n) {
  constexpr int kAtOnce = 16;  // independent, so that a compiler makes vectors of them
  int32_t most[kAtOnce] = {};
  const auto see = [](int32_t& so_far, float value) {
    const auto bits = static_cast<int32_t>(BitsOfFloat(value) & 0x7FFFFFFFu);
    so_far = bits > so_far ? bits : so_far;
  };
  int64_t i = 0;
  for (; i + kAtOnce <= n; i += kAtOnce) {
    for (int j = 0; j < kAtOnce; ++j) see(most[j], x[i + j]);
  }
  for (; i < n; ++i) see(most[0], x[i]);
  return FloatOfBits(static_cast<uint32_t>(*std::max_element(most, most + kAtOnce)));
}

[[noreturn]] void RefuseValue(const EncodeJob& job, float value) {
  Throw(ErrorCode::kCorrupt, "{}: expected values up to {} for {}, found {}{}", job.name,
        LargestOf(job.to), DTypeName(job.to), value,
        std::isfinite(value) && job.to == DType::kF16 ? "; write bf16 or f32 instead" : "");
}

}  // namespace

RowSource RowsOf(DType type, const uint8_t* rows, int64_t k) {
  return [type, rows, k, bytes = RowBytes(type, k)](int64_t row, int64_t count, float* x) {
    DequantizeRow(type, rows + row * bytes, x, count * k);
  };
}

void Encode(ThreadPool& pool, const KernelTable& kernels, const EncodeJob& job,
            const RowSource& source) {
  const auto type = PanelTypeOf(job.to);
  if (!type) {
    Throw(ErrorCode::kUnsupported, "{}: expected a type of weights to write, found {}", job.name,
          DTypeName(job.to));
  }
  BAKESTONE_CHECK(job.n >= 0 && job.k > 0 && job.k % BlockSize(job.to) == 0);
  BAKESTONE_CHECK(job.importance.empty() || static_cast<int64_t>(job.importance.size()) == job.k);
  const int64_t to_bytes = RowBytes(job.to, job.k);
  const int64_t rows_at_once = std::max<int64_t>(1, kValuesAtOnce / job.k);
  const auto encode = kernels.encode.rows[static_cast<int>(*type)];
  const float* importance = job.importance.empty() ? nullptr : job.importance.data();
  Buffer<float> space(pool.num_threads() * rows_at_once * job.k);
  std::atomic<float> wrong = 0;
  pool.ParallelFor(job.n, rows_at_once, [&](int64_t begin, int64_t end, int thread) {
    float* x = space.data() + thread * rows_at_once * job.k;
    for (int64_t row = begin; row < end; row += rows_at_once) {
      const int64_t count = std::min(rows_at_once, end - row);
      source(row, count, x);
      const float magnitude = Magnitude(x, count * job.k);
      if (!(magnitude <= LargestOf(job.to))) {
        wrong = magnitude;
        return;
      }
      encode({x, importance, job.out + row * to_bytes, job.k}, {0, count});
    }
  });
  if (wrong != 0) RefuseValue(job, wrong);
}

}  // namespace bakestone::ops
