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

namespace {

// Encodes rows a few at a time, and notes a value that the type cannot hold.
class RowEncoder {
 public:
  RowEncoder(const EncodeJob& job, const KernelTable& kernels, int num_threads)
      : job_(job), rows_at_once_(std::max<int64_t>(1, kValuesAtOnce / job.k)) {
    const auto type = PanelTypeOf(job.to);
    if (!type) {
      Throw(ErrorCode::kUnsupported, "{}: expected a type of weights to write, found {}", job.name,
            DTypeName(job.to));
    }
    BAKESTONE_CHECK(job.n >= 0 && job.k > 0 && job.k % BlockSize(job.to) == 0);
    BAKESTONE_CHECK(job.importance.empty() ||
                    (!job.fast && static_cast<int64_t>(job.importance.size()) == job.k));
    type_ = *type;
    encode_ = (job.fast ? kernels.encode.fast : kernels.encode.rows)[static_cast<int>(type_)];
    space_ = Buffer<float>(num_threads * rows_at_once_ * job.k);
  }

  PanelType type() const { return type_; }
  int64_t rows_at_once() const { return rows_at_once_; }

  // read(row, count, x) for rows [begin, end) -> out. False where a value does not fit.
  template <class Read>
  bool Rows(int64_t begin, int64_t end, int thread, const Read& read, uint8_t* out) {
    const int64_t bytes = RowBytes(job_.to, job_.k);
    float* x = space_.data() + thread * rows_at_once_ * job_.k;
    const float* importance = job_.importance.empty() ? nullptr : job_.importance.data();
    for (int64_t row = begin; row < end; row += rows_at_once_) {
      const int64_t count = std::min(rows_at_once_, end - row);
      read(row, count, x);
      const float magnitude = Magnitude(x, count * job_.k);
      if (!(magnitude <= LargestOf(job_.to))) {
        wrong_ = magnitude;
        return false;
      }
      encode_({x, importance, out + (row - begin) * bytes, job_.k}, {0, count});
    }
    return true;
  }

  void ThrowIfWrong() const {
    if (wrong_ != 0) RefuseValue(job_, wrong_);
  }

 private:
  const EncodeJob& job_;
  const int64_t rows_at_once_;
  PanelType type_{};
  EncodeRows encode_ = nullptr;
  Buffer<float> space_;  // [threads, rows_at_once, k]
  std::atomic<float> wrong_ = 0;
};

}  // namespace

void Encode(ThreadPool& pool, const KernelTable& kernels, const EncodeJob& job,
            const RowSource& source) {
  RowEncoder encoder(job, kernels, pool.num_threads());
  const int64_t bytes = RowBytes(job.to, job.k);
  pool.ParallelFor(job.n, encoder.rows_at_once(), [&](int64_t begin, int64_t end, int thread) {
    encoder.Rows(begin, end, thread, source, job.out + begin * bytes);
  });
  encoder.ThrowIfWrong();
}

void EncodePacked(ThreadPool& pool, const KernelTable& kernels, const EncodeJob& job,
                  const RowSource& source, std::span<const int32_t> row_map) {
  BAKESTONE_CHECK(row_map.empty() || static_cast<int64_t>(row_map.size()) == job.n);
  RowEncoder encoder(job, kernels, pool.num_threads());
  const auto read = [&](int64_t row, int64_t count, float* x) {
    if (row_map.empty()) return source(row, count, x);
    for (int64_t i = 0; i < count; ++i) {
      source(row_map[static_cast<size_t>(row + i)], 1, x + i * job.k);
    }
  };
  const int64_t strip_rows_bytes = kStripRows * RowBytes(job.to, job.k),
                strip_bytes = StripBytes(encoder.type(), job.k);
  Buffer<uint8_t> rows(pool.num_threads() * strip_rows_bytes);
  pool.ParallelFor(NumStrips(job.n), 1, [&](int64_t begin, int64_t end, int thread) {
    uint8_t* own = rows.data() + thread * strip_rows_bytes;
    for (int64_t strip = begin; strip < end; ++strip) {
      const int64_t first = strip * kStripRows, last = std::min(first + kStripRows, job.n);
      if (!encoder.Rows(first, last, thread, read, own)) return;
      PackStrips({.type = encoder.type(),
                  .rows = own,
                  .n = last - first,
                  .k = job.k,
                  .row_map = nullptr,
                  .panel = job.out + strip * strip_bytes},
                 {0, 1});
    }
  });
  encoder.ThrowIfWrong();
}

}  // namespace bakestone::ops
