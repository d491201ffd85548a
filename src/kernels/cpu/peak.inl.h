// The loops of kernels/peak.h over one vector class.
#pragma once

#include "kernels/peak.h"

namespace bakestone {
namespace {

// kRows rows of 32 activations on one block of 4-bit weights, as the integer tile does per block.
template <class V>
int64_t PeakInt8(int64_t rounds, const uint8_t* operands, float* result) noexcept {
  typename V::B w[8];
  for (int i = 0; i < 8; ++i) w[i] = V::AndB(V::LoadB(operands + 64 * i), V::SetB(15));
  typename V::I sums[V::kRows];
  for (auto& sum : sums) sum = V::SetI(0);
  for (int64_t round = 0; round < rounds; ++round) {
    // Another address each round, so that no product can be taken out of the loop.
    const auto* a = reinterpret_cast<const int8_t*>(operands) + round % 32 * 64;
#pragma GCC unroll 8
    for (int row = 0; row < V::kRows; ++row) {
      sums[row] = V::template Dot<4, 8>(sums[row], w, a + row * 32);
    }
  }
  typename V::F total = V::Zero();
  for (const auto& sum : sums) total = V::Add(total, V::ToFloat(sum));
  V::Store(result, total);
  return rounds * V::kRows * 8 * 64;
}

template <class V>
int64_t PeakFloat(int64_t rounds, const uint8_t* operands, float* result) noexcept {
  constexpr int kSums = 8;
  typename V::F sums[kSums];
  for (auto& sum : sums) sum = V::Zero();
  const typename V::F w = V::Set(0.5f);
  for (int64_t round = 0; round < rounds; ++round) {
    const auto* a =
        reinterpret_cast<const float*>(operands + kPeakOperandBytes / 2) + round % 32 * 16;
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) sums[i] = V::Fma(w, V::Set(a[i]), sums[i]);
  }
  typename V::F total = V::Zero();
  for (const auto& sum : sums) total = V::Add(total, sum);
  V::Store(result, total);
  return rounds * kSums * 16;
}

}  // namespace
}  // namespace bakestone
