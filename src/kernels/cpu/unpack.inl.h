// The per-type transforms: what each panel type needs and nothing else knows. Weights of 32 k come out
// as eight B (four k a lane each), unsigned: the true quant is the byte less kBias.
#pragma once

#include <cstdint>

#include "kernels/panel.h"
#include "tensor/inline.h"

namespace bakestone {
namespace {

// Codebooks of blocks.h, biased to unsigned: kIQ4Values + 128, kMXFP4Values + 12.
alignas(16) constexpr uint8_t kIQ4Biased[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                129, 141, 153, 166, 181, 197, 217, 241};
alignas(16) constexpr uint8_t kMXFP4Biased[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                  12, 11, 10, 9,  8,  6,  4,  0};

template <PanelType kType>
struct Traits {
  static constexpr bool kIQ4 = kType == PanelType::kIQ4_NL || kType == PanelType::kIQ4_XS;
  static constexpr bool kQ5 =
      kType == PanelType::kQ5_0 || kType == PanelType::kQ5_1 || kType == PanelType::kQ5_K;
  static constexpr bool kMin = kType == PanelType::kQ4_1 || kType == PanelType::kQ5_1 ||
                               kType == PanelType::kQ2_K || kType == PanelType::kQ4_K ||
                               kType == PanelType::kQ5_K;
  // Bound of the unsigned weights, for tables whose 16-bit sums are narrow.
  static constexpr int kBits = kType == PanelType::kQ8_0 || kIQ4 ? 8
                               : kType == PanelType::kQ6_K       ? 6
                               : kQ5 || kType == PanelType::kMXFP4 ? 5
                                                                   : 4;
  static constexpr int kBias = kType == PanelType::kQ4_0               ? 8
                               : kType == PanelType::kQ5_0             ? 16
                               : kType == PanelType::kQ8_0 || kIQ4     ? 128
                               : kType == PanelType::kMXFP4            ? 12
                               : kType == PanelType::kQ6_K             ? 32
                               : kType == PanelType::kQ3_K             ? 4
                                                                       : 0;
  // Super-blocks whose scales cover 16 weights.
  static constexpr bool kBy16 =
      kType == PanelType::kQ2_K || kType == PanelType::kQ3_K || kType == PanelType::kQ6_K;
  // Bytes of 32 k of a strip.
  static constexpr int kShare = PanelShapeOf(kType).block == 256 ? 8 : 1;
  static constexpr int kLow = PanelShapeOf(kType).low / kShare;
  static constexpr int kHigh = PanelShapeOf(kType).high / kShare;
};

// The bias left in a dot product made with V::Dot<Traits::kBits>.
template <class V, PanelType kType>
constexpr int DotBias() {
  return Traits<kType>::kBits == 8 ? V::kByteBias : Traits<kType>::kBias;
}

template <class V>
BAKESTONE_INLINE void UnpackNibbles(const uint8_t* low, typename V::B* w) {
  const auto mask = V::SetB(15);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const auto packed = V::LoadB(low + 64 * j);
    w[j] = V::AndB(packed, mask);
    w[j + 4] = V::AndB(V::template ShrB<4>(packed), mask);
  }
}

// Two bits of each weight, at bits kAt and kAt + 1.
template <class V, int kAt>
BAKESTONE_INLINE void UnpackTwoBits(const uint8_t* plane, typename V::B* w) {
  const auto mask = V::SetB(3 << kAt);
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v) {
    const auto packed = V::LoadB(plane + 64 * v);
    if constexpr (kAt == 0) {
      w[4 * v] = V::AndB(packed, mask);
      w[4 * v + 1] = V::AndB(V::template ShrB<2>(packed), mask);
      w[4 * v + 2] = V::AndB(V::template ShrB<4>(packed), mask);
      w[4 * v + 3] = V::AndB(V::template ShrB<6>(packed), mask);
    } else {
      w[4 * v] = V::AndB(V::template ShlB<4>(packed), mask);
      w[4 * v + 1] = V::AndB(V::template ShlB<2>(packed), mask);
      w[4 * v + 2] = V::AndB(packed, mask);
      w[4 * v + 3] = V::AndB(V::template ShrB<2>(packed), mask);
    }
  }
}

// w |= bit g of the plane's byte, moved to bit kAt (2 or 4).
template <class V, int kAt>
BAKESTONE_INLINE void AddBits(const uint8_t* plane, typename V::B* w) {
  const auto mask = V::SetB(1 << kAt);
  const auto bits = V::LoadB(plane);
  typename V::B moved[8];
  if constexpr (kAt == 4) {
    moved[0] = V::template ShlB<4>(bits);
    moved[1] = V::template ShlB<3>(bits);
    moved[2] = V::template ShlB<2>(bits);
    moved[3] = V::template ShlB<1>(bits);
    moved[4] = bits;
    moved[5] = V::template ShrB<1>(bits);
    moved[6] = V::template ShrB<2>(bits);
    moved[7] = V::template ShrB<3>(bits);
  } else {
    moved[0] = V::template ShlB<2>(bits);
    moved[1] = V::template ShlB<1>(bits);
    moved[2] = bits;
    moved[3] = V::template ShrB<1>(bits);
    moved[4] = V::template ShrB<2>(bits);
    moved[5] = V::template ShrB<3>(bits);
    moved[6] = V::template ShrB<4>(bits);
    moved[7] = V::template ShrB<5>(bits);
  }
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) w[g] = V::OrB(w[g], V::AndB(moved[g], mask));
}

// 32 k of a strip: low and high point at their shares of the planes.
template <class V, PanelType kType>
BAKESTONE_INLINE void Unpack32(const uint8_t* low, const uint8_t* high, typename V::B* w) {
  if constexpr (kType == PanelType::kQ8_0) {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) w[g] = V::LoadB(low + 64 * g);
  } else if constexpr (kType == PanelType::kQ2_K || kType == PanelType::kQ3_K) {
    UnpackTwoBits<V, 0>(low, w);
    if constexpr (kType == PanelType::kQ3_K) AddBits<V, 2>(high, w);
  } else {
    UnpackNibbles<V>(low, w);
    if constexpr (Traits<kType>::kQ5) AddBits<V, 4>(high, w);
    if constexpr (kType == PanelType::kQ6_K) {
      typename V::B upper[8];
      UnpackTwoBits<V, 4>(high, upper);
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) w[g] = V::OrB(w[g], upper[g]);
    }
    if constexpr (Traits<kType>::kIQ4 || kType == PanelType::kMXFP4) {
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) {
        w[g] = V::Lookup(kType == PanelType::kMXFP4 ? kMXFP4Biased : kIQ4Biased, w[g]);
      }
    }
  }
  (void)high;
}

// d of a block of 32. MXFP4: 2^(e - 128) as a product of two powers, exact for denormals too.
template <class V, PanelType kType>
BAKESTONE_INLINE typename V::F BlockScale(const uint8_t* side) {
  if constexpr (kType == PanelType::kMXFP4) {
    const auto e = V::LoadU8(side), half = V::template ShrU<1>(e), bias = V::SetI(63);
    const auto a = V::template Shl<23>(V::AddI(half, bias));
    const auto b = V::template Shl<23>(V::AddI(V::SubI(e, half), bias));
    return V::Mul(V::OfBits(a), V::OfBits(b));
  } else {
    return V::LoadHalf(side);
  }
}

// Scale of group g (16 weights where kBy16, else 32) of a super-block.
template <class V, PanelType kType>
BAKESTONE_INLINE typename V::I GroupScale(const uint8_t* side, int g) {
  if constexpr (kType == PanelType::kQ2_K) {
    return V::AndI(V::LoadU8(side + 64 + 16 * g), V::SetI(15));
  } else if constexpr (kType == PanelType::kQ3_K) {
    const auto packed = V::LoadU8(side + 32 + g % 8 * 16);
    const auto low = g < 8 ? V::AndI(packed, V::SetI(15)) : V::template ShrU<4>(packed);
    const auto upper = V::LoadU8(side + 32 + (8 + g % 4) * 16);
    const auto shifted = g < 4    ? V::template Shl<4>(upper)
                         : g < 8  ? V::template Shl<2>(upper)
                         : g < 12 ? upper
                                  : V::template ShrU<2>(upper);
    return V::SubI(V::OrI(low, V::AndI(shifted, V::SetI(0x30))), V::SetI(32));
  } else if constexpr (kType == PanelType::kQ4_K || kType == PanelType::kQ5_K) {
    return V::LoadU8(side + 64 + 16 * g);
  } else {
    return V::LoadI8(side + 32 + 16 * g);
  }
}

template <class V, PanelType kType>
BAKESTONE_INLINE typename V::I GroupMin(const uint8_t* side, int g) {
  if constexpr (kType == PanelType::kQ2_K) {
    return V::template ShrU<4>(V::LoadU8(side + 64 + 16 * g));
  } else {
    return V::LoadU8(side + 192 + 16 * g);
  }
}

// The planes of one strip.
struct StripPlanes {
  const uint8_t *low, *high, *side;
};

BAKESTONE_INLINE StripPlanes PlanesOf(const Panel& panel, int64_t strip) {
  const PanelShape shape = PanelShapeOf(panel.type);
  const int64_t blocks = PanelBlocks(panel.type, panel.k);
  const uint8_t* low = panel.data + strip * StripBytes(panel.type, panel.k);
  return {low, low + blocks * shape.low, low + blocks * (shape.low + shape.high)};
}

}  // namespace
}  // namespace bakestone
