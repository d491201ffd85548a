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

// One group of 32, as keys, values and queries of attention are quantized. Returns the scale.
template <class V>
BAKESTONE_INLINE float QuantizeGroup(const float* x, int8_t* q, int16_t* sum, uint32_t* error) {
  const auto magnitude = V::SetI(0x7FFFFFFF);
  const auto max = V::MaxI(V::AndI(V::Bits(V::Load(x)), magnitude),
                           V::AndI(V::Bits(V::Load(x + 16)), magnitude));
  const int32_t max_bits = V::MaxOfI(max);
  const float amax = __builtin_bit_cast(float, max_bits);
  float inverse = 0, scale = 0;
  if (max_bits >= kInfinityBits) {
    SetError(error);
  } else if (amax >= 0x1p-100f) {
    inverse = 127.0f / amax;
    scale = amax / 127.0f;
  }
  const auto low = V::Nearest(V::Mul(V::Load(x), V::Set(inverse)));
  const auto high = V::Nearest(V::Mul(V::Load(x + 16), V::Set(inverse)));
  V::StoreI8(q, low);
  V::StoreI8(q + 16, high);
  *sum = static_cast<int16_t>(V::SumI(V::AddI(low, high)));
  return scale;
}

// Up to kGroups groups of kN values with a scale each, and their sums of kSum values each: sixteen
// sums at a time, so that reductions across lanes, divisions and conversions are shared by all of
// them.
template <class V, int kN, int kSum>
struct GroupQuantizer {
  static constexpr int kGroups = 16 * kSum / kN;

  int count;  // of groups, at most kGroups

  // Writes 127 / amax of each group to inverse and amax / 127 to scale; 0 where amax is tiny.
  BAKESTONE_INLINE void Scales(const float* x, float* inverse, float* scale,
                               uint32_t* error) const {
    typename V::I maxima[16];
    for (auto& max : maxima) max = V::SetI(0);
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) {
      if (g >= count) break;
#pragma GCC unroll 8
      for (int i = 0; i < kN; i += 16) {
        const auto magnitude = V::AndI(V::Bits(V::Load(x + kN * g + i)), V::SetI(0x7FFFFFFF));
        maxima[g] = V::MaxI(maxima[g], magnitude);
      }
    }
    const auto amax = V::OfBits(V::MaxOfEach(maxima, count)), steps = V::Set(127.0f);
    if (V::MaxOfI(V::Bits(amax)) >= kInfinityBits) SetError(error);
    const auto keep = [&](typename V::F value) __attribute__((always_inline)) {
      return V::OfBits(V::KeepWhere(V::Bits(value), amax, 0x1p-100f));
    };
    V::Store(inverse, keep(V::Div(steps, amax)));
    V::StoreN(scale, keep(V::Div(amax, steps)), count);
  }

  // The sums come back too, a lane each.
  BAKESTONE_INLINE typename V::I Run(const float* x, int8_t* q, float* scale, int16_t* sums,
                                     uint32_t* error) const {
    alignas(64) float inverse[16];
    Scales(x, inverse, scale, error);
    typename V::I sum[16];
    for (auto& part : sum) part = V::SetI(0);
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g) {
      if (g >= count) break;
#pragma GCC unroll 8
      for (int i = 0; i < kN; i += 16) {
        const auto rounded = V::Nearest(V::Mul(V::Load(x + kN * g + i), V::Set(inverse[g])));
        V::StoreI8(q + kN * g + i, rounded);
        auto& part = sum[(kN * g + i) / kSum];
        part = V::AddI(part, rounded);
      }
    }
    const auto sum_of_each = V::SumOfEach(sum, count * kN / kSum);
    V::StoreI16N(sums, sum_of_each, count * kN / kSum);
    return sum_of_each;
  }
};

// The first n of 32 values, then zeros.
template <class V>
BAKESTONE_INLINE void LoadGroup(const float* x, int64_t n, float* group) {
  V::Store(group, V::LoadN(x, n));
  V::Store(group + 16, n > 16 ? V::LoadN(x + 16, n - 16) : V::Zero());
}

template <class V>
void QuantizeInt8x32(const QuantizeArgs& args, Range rows) noexcept {
  using Groups = GroupQuantizer<V, 32, 32>;
  const int64_t blocks = args.out.k / 32;
  const int64_t begin = args.columns.begin / 32, end = args.columns.end / 32;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t b = begin; b < end; b += Groups::kGroups) {
      const int64_t at = m * blocks + b, left = end - b;
      const int count = static_cast<int>(left < Groups::kGroups ? left : Groups::kGroups);
      const auto sums = Groups{count}.Run(args.x + m * args.x_stride + 32 * (b - begin),
                                          args.out.q + m * args.out.stride + 32 * b,
                                          args.out.scale + at, args.out.sum + at, args.error);
      const auto scaled = V::Mul(V::LoadN(args.out.scale + at, count), V::ToFloat(sums));
      V::StoreN(args.out.scaled_sum + at, scaled, count);
    }
  }
}

template <class V>
void QuantizeInt8x128(const QuantizeArgs& args, Range rows) noexcept {
  using Groups = GroupQuantizer<V, 128, 16>;
  const int64_t blocks = args.out.k / 128;
  const int64_t begin = args.columns.begin / 128, end = args.columns.end / 128;  // both even
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t b = begin; b < end; b += Groups::kGroups) {
      Groups{Groups::kGroups}.Run(args.x + m * args.x_stride + 128 * (b - begin),
                                  args.out.q + m * args.out.stride + 128 * b,
                                  args.out.scale + m * blocks + b,
                                  args.out.sum + m * (args.out.k / 16) + 8 * b, args.error);
    }
  }
}

template <class V, bool kRound>
void QuantizeFloat(const QuantizeArgs& args, Range rows) noexcept {
  const int64_t k = args.columns.end - args.columns.begin;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* f = args.out.f + m * args.out.stride + args.columns.begin;
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
void LayerNorm(const LayerNormArgs& args, Range rows) noexcept {
  const int64_t k = args.k;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* y = args.y + m * args.y_stride;
    auto sums = V::Zero(), squares = V::Zero();
    for (int64_t i = 0; i < k; i += 16) sums = V::Add(sums, V::LoadN(x + i, k - i));
    const auto mean = V::Set(V::TreeSum(sums) / static_cast<float>(k));
    for (int64_t i = 0; i < k; i += 16) {
      const auto d = V::FirstN(V::Sub(V::LoadN(x + i, k - i), mean), V::Zero(), k - i);
      squares = V::Fma(d, d, squares);
    }
    const float variance = V::TreeSum(squares) / static_cast<float>(k);
    const auto scale = V::Set(1.0f / __builtin_sqrtf(variance + args.eps));
    for (int64_t i = 0; i < k; i += 16) {
      const auto scaled = V::Mul(V::Sub(V::LoadN(x + i, k - i), mean), scale);
      auto value = V::Mul(scaled, V::LoadN(args.weight + i, k - i));
      if (args.bias != nullptr) value = V::Add(value, V::LoadN(args.bias + i, k - i));
      V::StoreN(y + i, value, k - i);
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

template <class V, typename V::F (*kOp)(typename V::F, typename V::F)>
void Binary(const BinaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *a = args.a + m * args.a_stride, *b = args.b + m * args.b_stride;
    float* y = args.y + m * args.y_stride;
    for (int64_t i = 0; i < args.k; i += 16) {
      const int64_t n = args.k - i;
      V::StoreN(y + i, kOp(V::LoadN(a + i, n), V::LoadN(b + i, n)), n);
    }
  }
}

template <class V, typename V::F (*kOp)(typename V::F, float)>
void Unary(const UnaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* y = args.y + m * args.y_stride;
    for (int64_t i = 0; i < args.k; i += 16) {
      V::StoreN(y + i, kOp(V::LoadN(x + i, args.k - i), args.factor), args.k - i);
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
