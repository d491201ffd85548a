// Strips of integer panels as the wide tiles (matmul_wide.inl.h) read them: a byte for each weight,
// scales as 32-bit numbers, so that many rows share the work of unpacking. Written to scratch,
// never kept.
//
// A step is 32 k, of super-blocks 128 k. One plane of steps, and for super-blocks with minima a
//   second:
//   32-blocks      eight B (unsigned, L of kernels/panel.h), d, and m where the type has one: [16]
//                  f32
//   super-blocks   four times eight B and the integer scales of that 32 k, [16] i32 each; then d
//   Q2_K, Q3_K     four times eight B and d: the integer scale is multiplied into each byte. Q2_K:
//                  scale * quant, at most 45. Q3_K: 128 - scale * (quant - 4), 4 to 252; d is
//                  negated
//   minima         pairs of int16 for V::DotPairs, dmin
#pragma once

#include "kernels/cpu/unpack.inl.h"

namespace bakestone {
namespace {

template <PanelType kType>
struct Expanded {
  using T = Traits<kType>;
  static constexpr bool kSuper = PanelShapeOf(kType).block == 256;
  static constexpr bool kFolded = kType == PanelType::kQ2_K || kType == PanelType::kQ3_K;
  static constexpr int kGroups = kSuper ? 4 : 1;  // of 32 k
  static constexpr int64_t kStep = 32 * kGroups;
  static constexpr int kScales = !kSuper || kFolded ? 0 : T::kBy16 ? 2 : 1;  // of a group
  static constexpr int kPairs = !kSuper || !T::kMin ? 0 : T::kBy16 ? 4 : 2;  // of minima
  static constexpr int64_t kGroupBytes = 64 * (8 + kScales);
  static constexpr int64_t kStepBytes = kGroups * kGroupBytes + 64 + (kSuper || !T::kMin ? 0 : 64);
  static constexpr int64_t kMinBytes = kPairs > 0 ? 64 * (kPairs + 1) : 0;

  BAKESTONE_INLINE static constexpr int64_t Steps(int64_t k) { return k / kStep; }
  BAKESTONE_INLINE static constexpr int64_t StripBytes(int64_t k) {
    return Steps(k) * (kStepBytes + kMinBytes);
  }
};

template <class V>
BAKESTONE_INLINE void Put(uint8_t* out, typename V::F x) {
  V::Store(reinterpret_cast<float*>(out), x);
}
template <class V>
BAKESTONE_INLINE void PutI(uint8_t* out, typename V::I x) {
  Put<V>(out, V::OfBits(x));
}

// Four bytes a lane times the lane's scale, each byte by itself: in Q2_K no product reaches the
// next one; in Q3_K the sum modulo 2^32 is the one whose bytes are all in range.
template <class V, PanelType kType>
BAKESTONE_INLINE typename V::I Fold(typename V::I quants, typename V::I scale) {
  if constexpr (kType == PanelType::kQ2_K) {
    return V::MulI(quants, scale);
  } else {
    const auto base = V::AddI(V::SetI(128), V::template Shl<2>(scale));
    return V::SubI(V::MulI(base, V::SetI(0x01010101)), V::MulI(quants, scale));
  }
}

// 32 k with their integer scales.
template <class V, PanelType kType>
BAKESTONE_INLINE void ExpandGroup(const StripPlanes& planes, const uint8_t* side, int64_t block,
                                  int sub, uint8_t* out) {
  using T = Traits<kType>;
  const int64_t share = block * 8 + sub;
  typename V::B w[8];
  Unpack32<V, kType>(planes.low + share * T::kLow, planes.high + share * T::kHigh, w);
  if constexpr (Expanded<kType>::kFolded) {
    const typename V::I scale[2] = {GroupScale<V, kType>(side, 2 * sub),
                                    GroupScale<V, kType>(side, 2 * sub + 1)};
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) PutI<V>(out + 64 * g, Fold<V, kType>(V::AsI(w[g]), scale[g / 4]));
  } else {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) PutI<V>(out + 64 * g, V::AsI(w[g]));
    constexpr int kScales = Expanded<kType>::kScales;
    for (int i = 0; i < kScales; ++i) {
      PutI<V>(out + 64 * (8 + i), GroupScale<V, kType>(side, kScales * sub + i));
    }
  }
}

// 128 k of a super-block: half 0 or 1 of `block`.
template <class V, PanelType kType>
BAKESTONE_INLINE void ExpandHalf(const StripPlanes& planes, int64_t block, int half, uint8_t* out,
                                 uint8_t* minima) {
  using E = Expanded<kType>;
  const uint8_t* side = planes.side + block * PanelShapeOf(kType).side;
  for (int i = 0; i < 4; ++i, out += E::kGroupBytes) {
    ExpandGroup<V, kType>(planes, side, block, 4 * half + i, out);
  }
  const auto d = V::LoadHalf(side);
  Put<V>(out, kType == PanelType::kQ3_K ? V::Mul(d, V::Set(-1.0f)) : d);
  if constexpr (E::kPairs > 0) {
    for (int i = 0; i < E::kPairs; ++i, minima += 64) {
      const int group = 2 * (E::kPairs * half + i);
      PutI<V>(minima,
              Pairs<V>(GroupMin<V, kType>(side, group), GroupMin<V, kType>(side, group + 1)));
    }
    Put<V>(minima, V::LoadHalf(side + 32));
  }
}

template <class V, PanelType kType>
[[gnu::noinline]] void ExpandStrip(const Panel& panel, int64_t strip, uint8_t* out) {
  using T = Traits<kType>;
  using E = Expanded<kType>;
  const StripPlanes planes = PlanesOf(panel, strip);
  const int64_t steps = E::Steps(panel.k);
  uint8_t* minima = out + steps * E::kStepBytes;
  for (int64_t step = 0; step < steps; ++step, out += E::kStepBytes, minima += E::kMinBytes) {
    if constexpr (E::kSuper) {
      ExpandHalf<V, kType>(planes, step / 2, static_cast<int>(step % 2), out, minima);
    } else {
      typename V::B w[8];
      Unpack32<V, kType>(planes.low + step * T::kLow, planes.high + step * T::kHigh, w);
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) PutI<V>(out + 64 * g, V::AsI(w[g]));
      const uint8_t* side = planes.side + step * PanelShapeOf(kType).side;
      Put<V>(out + 512, BlockScale<V, kType>(side));
      if constexpr (T::kMin) Put<V>(out + 576, V::LoadHalf(side + 32));
    }
  }
}

}  // namespace
}  // namespace bakestone
