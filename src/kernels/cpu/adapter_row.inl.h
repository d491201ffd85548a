// One row by the first matrix of an adapter over a vector class.
#pragma once

#include "kernels/cpu/matmul.inl.h"
#include "kernels/cpu/rows.inl.h"

namespace bakestone {
namespace {

// Weights of a narrow strip; the lanes beyond are zeros, and never stored.
template <class V, int kLanes>
struct ReadNarrow {
  BAKESTONE_INLINE static void Pair(const uint8_t* p, typename V::F* even, typename V::F* odd) {
    const auto pairs = V::Bits(V::LoadN(reinterpret_cast<const float*>(p), kLanes));
    *even = V::OfBits(V::template Shl<16>(pairs));
    *odd = V::OfBits(V::AndI(pairs, V::SetI(static_cast<int32_t>(0xFFFF0000u))));
  }
  BAKESTONE_INLINE static void Fma(const uint8_t* p, const float* x, typename V::F* even,
                                   typename V::F* odd) {
    typename V::F w0, w1;
    Pair(p, &w0, &w1);
    *even = V::Fma(w0, V::Set(x[0]), *even);
    *odd = V::Fma(w1, V::Set(x[1]), *odd);
  }
  static constexpr int kBytes = 4 * kLanes;
};

template <class V, int kLanes>
[[gnu::noinline]] void NarrowStrip(const Activations& x, const uint8_t* strip, int64_t rows,
                                   float* y) {
  typename V::F r;
  TileFloat<V, ReadNarrow<V, kLanes>, 1>(x, strip, 0, &r);
  V::StoreN(y, r, rows);
}

template <class V>
void AdapterRow(const AdapterRowArgs& args, void* scratch) noexcept {
  const Activations& x = args.x;
  const int64_t rank = args.h.k, strips = rank / kStripRows, whole = strips * kStripRows;
  float* inner = static_cast<float*>(scratch);
  const Panel a{args.a, whole, x.k, PanelType::kBF16, true};
  const MatMulArgs first{x, a, {}, nullptr, inner, rank, Epilogue::kStore, 1.0f};
  MatMulNarrow<V, PanelType::kBF16, true>(first, {0, strips}, {0, 1});
  const uint8_t* narrow = args.a + strips * StripBytes(PanelType::kBF16, x.k);
  switch (rank > whole ? NarrowLanes(rank) : 0) {
    case 4:
      NarrowStrip<V, 4>(x, narrow, rank - whole, inner + whole);
      break;
    case 8:
      NarrowStrip<V, 8>(x, narrow, rank - whole, inner + whole);
      break;
    case 12:
      NarrowStrip<V, 12>(x, narrow, rank - whole, inner + whole);
      break;
    case 16:
      NarrowStrip<V, 16>(x, narrow, rank - whole, inner + whole);
      break;
    default:
      break;
  }
  const auto quantize = x.type == ActType::kBF16 ? QuantizeFloat<V, true> : QuantizeFloat<V, false>;
  quantize({inner, rank, args.h, {0, rank}, args.error}, {0, 1});
}

}  // namespace
}  // namespace bakestone
