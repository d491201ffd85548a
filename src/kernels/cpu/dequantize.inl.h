// Panels to f32: the values of tensor/dequantize.h, each product and sum rounded as there.
#pragma once

#include "kernels/cpu/unpack.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

// 32 weights of 16 lanes as floats, less the bias: calls put(k, value).
template <class V, PanelType kType, class Put>
BAKESTONE_INLINE void ForQuants(const uint8_t* low, const uint8_t* high, const Put& put) {
  typename V::B w[8];
  Unpack32<V, kType>(low, high, w);
  const auto mask = V::SetI(255), bias = V::SetI(Traits<kType>::kBias);
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) {
    const auto x = V::AsI(w[g]);
    put(4 * g, V::ToFloat(V::SubI(V::AndI(x, mask), bias)));
    put(4 * g + 1, V::ToFloat(V::SubI(V::AndI(V::template ShrU<8>(x), mask), bias)));
    put(4 * g + 2, V::ToFloat(V::SubI(V::AndI(V::template ShrU<16>(x), mask), bias)));
    put(4 * g + 3, V::ToFloat(V::SubI(V::template ShrU<24>(x), bias)));
  }
}

template <class V, PanelType kType>
BAKESTONE_INLINE void DequantizeBlock32(const StripPlanes& p, int64_t block, float* out) {
  const uint8_t* side = p.side + block * PanelShapeOf(kType).side;
  const auto d = BlockScale<V, kType>(side);
  auto m = V::Zero();
  if constexpr (Traits<kType>::kMin) m = V::LoadHalf(side + 32);
  ForQuants<V, kType>(p.low + block * Traits<kType>::kLow, p.high + block * Traits<kType>::kHigh,
                      [&](int k, typename V::F q) __attribute__((always_inline)) {
                        auto value = V::Mul(d, q);
                        if constexpr (Traits<kType>::kMin) value = V::Add(value, m);
                        V::Store(out + 16 * k, value);
                      });
}

template <class V, PanelType kType>
BAKESTONE_INLINE void DequantizeSuperBlock(const StripPlanes& p, int64_t block, float* out) {
  using T = Traits<kType>;
  const uint8_t* side = p.side + block * PanelShapeOf(kType).side;
  const auto d = V::LoadHalf(side);
  auto dmin = V::Zero();
  if constexpr (T::kMin) dmin = V::LoadHalf(side + 32);
  for (int sub = 0; sub < 8; ++sub) {
    const int groups[2] = {T::kBy16 ? 2 * sub : sub, T::kBy16 ? 2 * sub + 1 : sub};
    typename V::F scale[2], min[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      scale[i] = V::Mul(d, V::ToFloat(GroupScale<V, kType>(side, groups[i])));
      min[i] = V::Zero();
      if constexpr (T::kMin) min[i] = V::Mul(dmin, V::ToFloat(GroupMin<V, kType>(side, groups[i])));
    }
    const int64_t share = block * 8 + sub;
    ForQuants<V, kType>(p.low + share * T::kLow, p.high + share * T::kHigh,
                        [&](int k, typename V::F q) __attribute__((always_inline)) {
                          auto value = V::Mul(scale[k / 16], q);
                          if constexpr (T::kMin) value = V::Sub(value, min[k / 16]);
                          V::Store(out + (sub * 32 + k) * 16, value);
                        });
  }
}

template <class V, PanelType kType>
BAKESTONE_INLINE void DequantizePlain(const StripPlanes& p, int64_t k0, int64_t k1, float* out) {
  for (int64_t k = k0; k < k1; ++k, out += 16) {
    if constexpr (kType == PanelType::kF32) {
      V::Store(out, V::Load(reinterpret_cast<const float*>(p.low) + 16 * k));
    } else if constexpr (kType == PanelType::kF16) {
      V::Store(out, V::LoadHalf(p.low + 32 * k));
    } else {
      const uint8_t* pair = p.low + 64 * (k / 2);
      V::Store(out, k % 2 == 0 ? V::LoadEven(pair) : V::LoadOdd(pair));
    }
  }
}

template <class V, PanelType kType>
[[gnu::noinline]] void DequantizeStrip(const Panel& panel, int64_t strip, int64_t k0, int64_t k1,
                                       float* out) noexcept {
  constexpr int64_t kBlock = PanelShapeOf(kType).block;
  const StripPlanes planes = PlanesOf(panel, strip);
  if constexpr (kBlock == 2) {
    DequantizePlain<V, kType>(planes, k0, k1, out);
  } else {
    for (int64_t k = k0; k < k1; k += kBlock, out += kBlock * 16) {
      if constexpr (kBlock == 32) {
        DequantizeBlock32<V, kType>(planes, k / kBlock, out);
      } else {
        DequantizeSuperBlock<V, kType>(planes, k / kBlock, out);
      }
    }
  }
}

// Decodes sixteen rows and keeps one: still faster than the row alone, weight by weight.
template <class V, PanelType kType>
void DequantizeRows(const Panel& panel, const int32_t* rows, int64_t count, float* out,
                    int64_t stride) noexcept {
  constexpr int64_t kStep = 256;
  alignas(64) float tile[kStep * 16];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t strip = rows[i] / kStripRows, lane = rows[i] % kStripRows;
    for (int64_t k0 = 0; k0 < panel.k; k0 += kStep) {
      const int64_t k1 = k0 + kStep < panel.k ? k0 + kStep : panel.k;
      DequantizeStrip<V, kType>(panel, strip, k0, k1, tile);
      for (int64_t k = k0; k < k1; ++k) out[i * stride + k] = tile[(k - k0) * 16 + lane];
    }
  }
}

}  // namespace
}  // namespace bakestone
