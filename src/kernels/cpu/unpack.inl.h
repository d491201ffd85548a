// The per-type transforms: what each panel type needs and nothing else knows. Weights of 32 k come
// out as eight B (four k a lane each), unsigned: the true quant is the byte less kBias.
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
  static constexpr int kBits = kType == PanelType::kQ8_0 || kIQ4   ? 8
                               : kType == PanelType::kQ6_K         ? 6
                               : kQ5 || kType == PanelType::kMXFP4 ? 5
                                                                   : 4;
  static constexpr int kBias = kType == PanelType::kQ4_0           ? 8
                               : kType == PanelType::kQ5_0         ? 16
                               : kType == PanelType::kQ8_0 || kIQ4 ? 128
                               : kType == PanelType::kMXFP4        ? 12
                               : kType == PanelType::kQ6_K         ? 32
                               : kType == PanelType::kQ3_K         ? 4
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

// Bits of every byte moved from `kFrom` to `kTo`; mask afterwards.
template <class V, int kFrom, int kTo>
BAKESTONE_INLINE typename V::B MoveBits(typename V::B x) {
  if constexpr (kFrom > kTo) {
    return V::template ShrB<kFrom - kTo>(x);
  } else if constexpr (kFrom < kTo) {
    return V::template ShlB<kTo - kFrom>(x);
  } else {
    return x;
  }
}

// Group kG of the eight of 32 k of a strip; low and high point at their shares of the planes.
template <class V, PanelType kType, int kG>
BAKESTONE_INLINE typename V::B UnpackGroup(const uint8_t* low, const uint8_t* high) {
  (void)high;
  typename V::B w;
  if constexpr (kType == PanelType::kQ8_0) {
    return V::LoadB(low + 64 * kG);
  } else if constexpr (kType == PanelType::kQ2_K || kType == PanelType::kQ3_K) {
    w = V::AndB(MoveBits<V, 2 * (kG % 4), 0>(V::LoadB(low + 64 * (kG / 4))), V::SetB(3));
    if constexpr (kType == PanelType::kQ3_K) {
      w = V::OrB(w, V::AndB(MoveBits<V, kG, 2>(V::LoadB(high)), V::SetB(4)));
    }
  } else {
    w = V::AndB(MoveBits < V, kG<4 ? 0 : 4, 0>(V::LoadB(low + 64 * (kG % 4))), V::SetB(15));
    if constexpr (Traits<kType>::kQ5) {
      w = V::OrB(w, V::AndB(MoveBits<V, kG, 4>(V::LoadB(high)), V::SetB(16)));
    }
    if constexpr (kType == PanelType::kQ6_K) {
      const auto upper = V::LoadB(high + 64 * (kG / 4));
      w = V::OrB(w, V::AndB(MoveBits<V, 2 * (kG % 4), 4>(upper), V::SetB(48)));
    }
    if constexpr (Traits<kType>::kIQ4 || kType == PanelType::kMXFP4) {
      w = V::Lookup(kType == PanelType::kMXFP4 ? kMXFP4Biased : kIQ4Biased, w);
    }
  }
  return w;
}

// All eight.
template <class V, PanelType kType>
BAKESTONE_INLINE void Unpack32(const uint8_t* low, const uint8_t* high, typename V::B* w) {
  w[0] = UnpackGroup<V, kType, 0>(low, high);
  w[1] = UnpackGroup<V, kType, 1>(low, high);
  w[2] = UnpackGroup<V, kType, 2>(low, high);
  w[3] = UnpackGroup<V, kType, 3>(low, high);
  w[4] = UnpackGroup<V, kType, 4>(low, high);
  w[5] = UnpackGroup<V, kType, 5>(low, high);
  w[6] = UnpackGroup<V, kType, 6>(low, high);
  w[7] = UnpackGroup<V, kType, 7>(low, high);
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

// Fetches a line of weights that are read soon: into the L1 cache, or where it is one of a long
// strip into L2, which waits for more of them at once. On one core of Zen 4, 1 row, weights of 40
// to 55 MB on huge pages, GB/s with L1 and with L2: Q4_1 k = 576 (5.8 KiB) 27 and 24, Q8_0 (9.8
// KiB) 23 and 20, Q4_K k = 2048 (19 KiB) 30 and 44, Q6_K (27 KiB) 23 and 41.
BAKESTONE_INLINE void FetchLine(const uint8_t* line, bool far) {
  if (far) {
    __builtin_prefetch(line, 0, 2);
  } else {
    __builtin_prefetch(line, 0, 3);
  }
}
constexpr int64_t kFarStrip = 16384;

// Fetches weights ahead of their use: what lies one strip further, as one stream of rising
// addresses. The planes of a short strip are too many short streams for the hardware's prefetcher,
// and software streams plane by plane did not help it. On Zen 4, k = 576, weights in memory, GB/s
// without and with:
// Q4_1 10 and 25 (1 row), 6 and 11.5 (8 rows, where products are the limit), Q8_0 11 and 20.
template <PanelType kType>
struct Ahead {
  static constexpr int64_t kBytes =  // of 32 k
      (PanelShapeOf(kType).low + PanelShapeOf(kType).high + PanelShapeOf(kType).side) /
      Traits<kType>::kShare;
  const uint8_t* next;
  bool far;

  BAKESTONE_INLINE Ahead(const uint8_t* strip, int64_t strip_bytes)
      : next(strip + strip_bytes), far(strip_bytes >= kFarStrip) {}
  BAKESTONE_INLINE void Fetch(int64_t group) const {
#pragma GCC unroll 16
    for (int64_t at = 0; at < kBytes; at += 64) FetchLine(next + group * kBytes + at, far);
  }
};

// Two int16 a lane for V::DotPairs.
template <class V>
BAKESTONE_INLINE typename V::I Pairs(typename V::I even, typename V::I odd) {
  return V::OrI(V::AndI(even, V::SetI(0xFFFF)), V::template Shl<16>(odd));
}

}  // namespace
}  // namespace bakestone
