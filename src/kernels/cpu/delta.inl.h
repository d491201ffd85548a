// The gated delta rule and RWKV-7's over a vector class. Columns of S do not meet: a tile of 32 of
// them stays in the L1 cache (16 KiB of 128 rows) while it goes through all rows of the step, so S
// is read and written once. decay S is made twice, which costs less than to keep it. The sums over
// rows of S are chains: two vectors side by side hide their latency.
#pragma once

#include "kernels/cpu/math.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

// Columns [first, first + kVectors * 16) of a head, or with kTail the first `columns` of them.
template <class V, int kVectors, bool kTail>
struct Columns {
  using F = typename V::F;
  int64_t first, columns;

  BAKESTONE_INLINE F Load(const float* p, int i) const {
    return kTail ? V::LoadN(p + 16 * i, columns - 16 * i) : V::Load(p + 16 * i);
  }
  BAKESTONE_INLINE void Store(float* p, int i, F x) const {
    if (kTail) return V::StoreN(p + 16 * i, x, columns - 16 * i);
    V::Store(p + 16 * i, x);
  }
};

template <class V, int kVectors, bool kTail>
struct DeltaTile : Columns<V, kVectors, kTail> {
  using Base = Columns<V, kVectors, kTail>;
  using F = typename V::F;
  using Base::first;
  using Base::Load;
  using Base::Store;
  const DeltaRuleArgs& args;

  BAKESTONE_INLINE DeltaTile(const DeltaRuleArgs& args, int64_t first, int64_t columns)
      : Base{first, columns}, args(args) {}

  BAKESTONE_INLINE void Row(int64_t row, const float* before) const {
    const float *q = args.q + row * args.stride, *k = args.k + row * args.stride,
                *v = args.v + row * args.stride + first;
    const F decay = V::Set(args.decay[row * args.gate_stride]),
            rate = V::Set(args.rate[row * args.gate_stride]);
    F change[kVectors], y[kVectors];
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) change[i] = y[i] = V::Zero();
    for (int64_t d = 0; d < args.key_dim; ++d) {
      const float* s = before + d * args.value_dim + first;
      const F k_d = V::Set(k[d]);
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        change[i] = V::Add(change[i], V::Mul(k_d, V::Mul(Load(s, i), decay)));
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) change[i] = V::Mul(rate, V::Sub(Load(v, i), change[i]));
    for (int64_t d = 0; d < args.key_dim; ++d) {
      const int64_t at = d * args.value_dim + first;
      const F k_d = V::Set(k[d]), q_d = V::Set(q[d]);
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        const F s = V::Add(V::Mul(Load(before + at, i), decay), V::Mul(k_d, change[i]));
        Store(args.after + at, i, s);
        y[i] = V::Add(y[i], V::Mul(q_d, s));
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) Store(args.y + row * args.y_stride + first, i, y[i]);
  }
};

template <class V, int kVectors, bool kTail>
struct RwkvTile : Columns<V, kVectors, kTail> {
  using Base = Columns<V, kVectors, kTail>;
  using F = typename V::F;
  using Base::first;
  using Base::Load;
  using Base::Store;
  const RwkvRuleArgs& args;

  BAKESTONE_INLINE RwkvTile(const RwkvRuleArgs& args, int64_t first, int64_t columns)
      : Base{first, columns}, args(args) {}

  BAKESTONE_INLINE void Row(int64_t row, const float* before) const {
    const int64_t begin = row * args.stride;
    const float *removal = args.removal + begin, *rate = args.rate + begin, *k = args.k + begin,
                *r = args.r + begin, *decay = args.decay + begin, *v = args.v + begin + first;
    F removed[kVectors], y[kVectors];
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) removed[i] = y[i] = V::Zero();
    for (int64_t d = 0; d < args.dim; ++d) {
      const F share = V::Set(removal[d]);
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        removed[i] = V::Add(removed[i], V::Mul(share, Load(before + d * args.dim + first, i)));
      }
    }
    for (int64_t d = 0; d < args.dim; ++d) {
      const int64_t at = d * args.dim + first;
      const F back = V::Set(removal[d] * rate[d]), kept = V::Set(decay[d]), k_d = V::Set(k[d]),
              r_d = V::Set(r[d]);
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i) {
        const F left = V::Sub(V::Mul(Load(before + at, i), kept), V::Mul(back, removed[i]));
        const F s = V::Add(left, V::Mul(k_d, Load(v, i)));
        Store(args.after + at, i, s);
        y[i] = V::Add(y[i], V::Mul(r_d, s));
      }
    }
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) Store(args.y + row * args.y_stride + first, i, y[i]);
  }
};

template <class Tile, class Args>
BAKESTONE_INLINE void RunColumns(const Args& args, int64_t first, int64_t columns, Range rows) {
  const Tile tile(args, first, columns);
  tile.Row(rows.begin, args.before);
  for (int64_t row = rows.begin + 1; row < rows.end; ++row) tile.Row(row, args.after);
}

// All columns of a head through all rows.
template <class V, template <class, int, bool> class Tile, class Args>
BAKESTONE_INLINE void RunHead(const Args& args, int64_t columns, Range rows) {
  constexpr int64_t kWide = 32;
  int64_t first = 0;
  for (; first + kWide <= columns; first += kWide) {
    RunColumns<Tile<V, 2, false>>(args, first, kWide, rows);
  }
  const int64_t left = columns - first;
  if (left > 16) RunColumns<Tile<V, 2, true>>(args, first, left, rows);
  if (left == 16) RunColumns<Tile<V, 1, false>>(args, first, left, rows);
  if (left > 0 && left < 16) RunColumns<Tile<V, 1, true>>(args, first, left, rows);
}

template <class V>
void DeltaRule(const DeltaRuleArgs& args, Range rows) noexcept {
  RunHead<V, DeltaTile>(args, args.value_dim, rows);
}

template <class V>
void RwkvRule(const RwkvRuleArgs& args, Range rows) noexcept {
  RunHead<V, RwkvTile>(args, args.dim, rows);
}

}  // namespace
}  // namespace bakestone
