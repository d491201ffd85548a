// Row kernels over a vector class. Element i belongs to lane i % 16 of every sum; tails are masked.
#pragma once

#include "kernels/cpu/math.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

BAKESTONE_INLINE void SetError(uint32_t* error) {
  __atomic_fetch_or(error, kErrorNotFinite, __ATOMIC_RELAXED);
}

constexpr int32_t kInfinityBits = 0x7F800000;

// One scale over kN values; sums of kSum values each to `sums`. Returns the scale.
template <class V, int kN, int kSum>
BAKESTONE_INLINE float QuantizeGroup(const float* x, int8_t* q, int16_t* sums, uint32_t* error) {
  const auto magnitude = V::SetI(0x7FFFFFFF);
  auto max = V::SetI(0);
#pragma GCC unroll 8
  for (int i = 0; i < kN; i += 16) {
    max = V::MaxI(max, V::AndI(V::Bits(V::Load(x + i)), magnitude));
  }
  const int32_t max_bits = V::MaxOfI(max);
  const float amax = __builtin_bit_cast(float, max_bits);
  float inverse = 0, scale = 0;
  if (max_bits >= kInfinityBits) {
    SetError(error);
  } else if (amax >= 0x1p-100f) {
    inverse = 127.0f / amax;
    scale = amax / 127.0f;
  }
  if (scale == 0) {
    for (int i = 0; i < kN; i += 16) V::StoreI8(q + i, V::SetI(0));
    for (int i = 0; i < kN / kSum; ++i) sums[i] = 0;
    return 0;
  }
  auto sum = V::SetI(0);
#pragma GCC unroll 8
  for (int i = 0; i < kN; i += 16) {
    const auto rounded = V::Nearest(V::Mul(V::Load(x + i), V::Set(inverse)));
    V::StoreI8(q + i, rounded);
    sum = i % kSum == 0 ? rounded : V::AddI(sum, rounded);
    if ((i + 16) % kSum == 0) sums[i / kSum] = static_cast<int16_t>(V::SumI(sum));
  }
  return scale;
}

// The first n of 32 values, then zeros.
template <class V>
BAKESTONE_INLINE void LoadGroup(const float* x, int64_t n, float* group) {
  V::Store(group, V::LoadN(x, n));
  V::Store(group + 16, n > 16 ? V::LoadN(x + 16, n - 16) : V::Zero());
}

template <class V>
void QuantizeInt8x32(const QuantizeArgs& args, Range rows) noexcept {
  const int64_t blocks = args.out.k / 32;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = m * blocks + b;
      const float scale = QuantizeGroup<V, 32, 32>(args.x + m * args.x_stride + 32 * b,
                                                   args.out.q + m * args.out.stride + 32 * b,
                                                   args.out.sum + at, args.error);
      args.out.scale[at] = scale;
      args.out.scaled_sum[at] = scale * static_cast<float>(args.out.sum[at]);
    }
  }
}

template <class V>
void QuantizeInt8x128(const QuantizeArgs& args, Range rows) noexcept {
  const int64_t blocks = args.out.k / 128;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t b = 0; b < blocks; ++b) {
      args.out.scale[m * blocks + b] = QuantizeGroup<V, 128, 16>(
          args.x + m * args.x_stride + 128 * b, args.out.q + m * args.out.stride + 128 * b,
          args.out.sum + m * (args.out.k / 16) + 8 * b, args.error);
    }
  }
}

template <class V, bool kRound>
void QuantizeFloat(const QuantizeArgs& args, Range rows) noexcept {
  const int64_t k = args.out.k;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* f = args.out.f + m * args.out.stride;
    auto max = V::SetI(0);
    for (int64_t i = 0; i < k; i += 16) {
      const auto value = k - i >= 16 ? V::Load(x + i) : V::LoadN(x + i, k - i);
      max = V::MaxI(max, V::AndI(V::Bits(value), V::SetI(0x7FFFFFFF)));
      V::StoreN(f + i, kRound ? RoundBF16<V>(value) : value, k - i);
    }
    if (k % 2 != 0) f[k] = 0;
    if (V::MaxOfI(max) >= kInfinityBits) SetError(args.error);
  }
}

template <class V>
void RmsNorm(const RmsNormArgs& args, Range rows) noexcept {
  const int64_t k = args.k;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* y = args.y + m * args.y_stride;
    auto squares = V::Zero();
    for (int64_t i = 0; i < k; i += 16) {
      const auto value = V::LoadN(x + i, k - i);
      squares = V::Fma(value, value, squares);
    }
    const float mean = V::TreeSum(squares) / static_cast<float>(k);
    const auto scale = V::Set(1.0f / __builtin_sqrtf(mean + args.eps));
    for (int64_t i = 0; i < k; i += 16) {
      const auto scaled = V::Mul(V::LoadN(x + i, k - i), scale);
      V::StoreN(y + i, V::Mul(scaled, V::LoadN(args.weight + i, k - i)), k - i);
    }
  }
}

template <class V>
void Rope(const RopeArgs& args, Range rows) noexcept {
  const int64_t half = args.dim / 2;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t h = 0; h < args.heads; ++h) {
      float* x = args.x + m * args.stride + h * args.head_dim;
      for (int64_t i = 0; i < half; i += 16) {
        const int64_t n = half - i;
        const auto cos = V::LoadN(args.cos + m * half + i, n);
        const auto sin = V::LoadN(args.sin + m * half + i, n);
        const auto a = V::LoadN(x + i, n), b = V::LoadN(x + half + i, n);
        V::StoreN(x + i, V::Sub(V::Mul(a, cos), V::Mul(b, sin)), n);
        V::StoreN(x + half + i, V::Add(V::Mul(b, cos), V::Mul(a, sin)), n);
      }
    }
  }
}

template <class V>
struct SwiGluOp {
  BAKESTONE_INLINE static typename V::F Run(typename V::F a, typename V::F b) {
    return SwiGlu<V>(a, b);
  }
};
template <class V>
struct AddOp {
  BAKESTONE_INLINE static typename V::F Run(typename V::F a, typename V::F b) { return V::Add(a, b); }
};

template <class V, class Op>
void Binary(const BinaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *a = args.a + m * args.a_stride, *b = args.b + m * args.b_stride;
    float* y = args.y + m * args.y_stride;
    for (int64_t i = 0; i < args.k; i += 16) {
      const int64_t n = args.k - i;
      V::StoreN(y + i, Op::Run(V::LoadN(a + i, n), V::LoadN(b + i, n)), n);
    }
  }
}

template <class V>
void ComputeSoftmaxStats(const float* x, int64_t stride, int64_t k, SoftmaxStats* stats,
                         Range rows) noexcept {
  const auto lowest = V::Set(-__builtin_inff());
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* row = x + m * stride;
    auto maxima = lowest;
    for (int64_t i = 0; i < k; i += 16) {
      maxima = V::Max(maxima, V::FirstN(V::LoadN(row + i, k - i), lowest, k - i));
    }
    const float max = V::MaxOf(maxima) + 0.0f;
    auto sums = V::Zero();
    for (int64_t i = 0; i < k; i += 16) {
      const auto p = Exp<V>(V::Sub(V::LoadN(row + i, k - i), V::Set(max)));
      sums = V::Add(sums, V::FirstN(p, V::Zero(), k - i));
    }
    stats[m].max = max;
    stats[m].sum = V::TreeSum(sums);
  }
}

template <class V>
void Softmax(const float* x, int64_t k, SoftmaxStats stats, float* y) noexcept {
  const auto max = V::Set(stats.max), inverse = V::Set(1.0f / stats.sum);
  for (int64_t i = 0; i < k; i += 16) {
    const auto p = Exp<V>(V::Sub(V::LoadN(x + i, k - i), max));
    V::StoreN(y + i, V::Mul(p, inverse), k - i);
  }
}

}  // namespace
}  // namespace bakestone
