// The gated delta rule over a vector class. Columns of S do not meet: a tile of 32 of them stays in
// the L1 cache (16 KiB of 128 rows) while it goes through all rows of the step, so S is read and
// written once. decay S is made twice, which costs less than to keep it. The sums over rows of S
// are chains: two vectors side by side hide their latency.
#pragma once

#include "kernels/cpu/math.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

// Columns [0, kVectors * 16) of a head, or with kTail the first `columns` of them.
template <class V, int kVectors, bool kTail>
struct DeltaTile {
  using F = typename V::F;
  const DeltaRuleArgs& args;
  int64_t first, columns;

  BAKESTONE_INLINE F Load(const float* p, int i) const {
    return kTail ? V::LoadN(p + 16 * i, columns - 16 * i) : V::Load(p + 16 * i);
  }
  BAKESTONE_INLINE void Store(float* p, int i, F x) const {
    if (kTail) return V::StoreN(p + 16 * i, x, columns - 16 * i);
    V::Store(p + 16 * i, x);
  }

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

  BAKESTONE_INLINE void Run(Range rows) const {
    Row(rows.begin, args.before);
    for (int64_t row = rows.begin + 1; row < rows.end; ++row) Row(row, args.after);
  }
};

template <class V>
void DeltaRule(const DeltaRuleArgs& args, Range rows) noexcept {
  constexpr int64_t kWide = 32;
  int64_t first = 0;
  for (; first + kWide <= args.value_dim; first += kWide) {
    DeltaTile<V, 2, false>{args, first, kWide}.Run(rows);
  }
  const int64_t left = args.value_dim - first;
  if (left > 16) DeltaTile<V, 2, true>{args, first, left}.Run(rows);
  if (left == 16) DeltaTile<V, 1, false>{args, first, left}.Run(rows);
  if (left > 0 && left < 16) DeltaTile<V, 1, true>{args, first, left}.Run(rows);
}

}  // namespace
}  // namespace bakestone
