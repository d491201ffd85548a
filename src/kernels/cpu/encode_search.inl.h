// The searches of the encoders: which scale, or which scale and offset, leaves the least weighted
// squared error of a group of weights,
//
//   E = sum over i of w[i] * (x[i] - (scale * q[i] + offset))^2,   q[i] the level nearest to x[i].
//
// E is no smooth function: as the scale moves, weights hop from level to level, and E has many
// minima that lie well below the mean over scales. So scales are tried on a grid that is fine
// beside the distance between hops, each candidate is judged by the scale that is best for its
// levels (a least-squares fit), and the winner is polished: fit, assign levels, fit again.
//
// Sixteen groups go side by side, one a lane; no sum crosses lanes, and every sum is one chain in
// the order of i. So the result does not depend on the ISA, on the split of the work or on the
// neighbours.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "tensor/blocks.h"

namespace bakestone {
namespace {

inline constexpr int kLanes = 16;

// Value i of lane l is at [i * kLanes + l]. w >= 0; kAlike: every weight counts 1, which a compiler
// multiplies away.
template <int kSize, bool kOne = false>
struct Groups {
  static constexpr int kValues = kSize;
  static constexpr bool kAlike = kOne;
  alignas(64) float x[kSize * kLanes];
  alignas(64) float w[kAlike ? kLanes : kSize * kLanes];

  template <class V>
  BAKESTONE_INLINE typename V::F X(int i) const {
    return V::Load(x + i * kLanes);
  }
  template <class V>
  BAKESTONE_INLINE typename V::F W(int i) const {
    return kAlike ? V::Set(1.0f) : V::Load(w + i * kLanes);
  }
};

// ---- Levels: the integers that a weight can be a multiple of ----

// To the nearest integer, ties to even; |t| < 2^22.
template <class V>
BAKESTONE_INLINE typename V::F RoundToInteger(typename V::F t) {
  const typename V::F magic =
      V::Set(12582912.0f);  // 1.5 * 2^23: the sum has no bits below the point
  return V::Sub(V::Add(t, magic), magic);
}

template <class V, int kLow, int kHigh>
struct UniformLevels {
  BAKESTONE_INLINE static typename V::F Nearest(typename V::F t) {
    return RoundToInteger<V>(V::Max(V::Min(t, V::Set(kHigh)), V::Set(kLow)));
  }
};

template <class V>
struct IQ4Levels {
  BAKESTONE_INLINE static typename V::F Nearest(typename V::F t) {
    typename V::F level = V::Set(kIQ4Values[0]);
#pragma GCC unroll 15
    for (int i = 0; i < 15; ++i) {
      const float middle = 0.5f * static_cast<float>(kIQ4Values[i] + kIQ4Values[i + 1]);
      level = V::SelectLess(V::Set(middle), t, V::Set(kIQ4Values[i + 1]), level);
    }
    return level;
  }
};

template <class V>
struct MXFP4Levels {
  BAKESTONE_INLINE static typename V::F Nearest(typename V::F t) {
    const typename V::F magnitude = V::Abs(t);
    typename V::F level = V::Zero();
#pragma GCC unroll 7
    for (int i = 0; i < 7; ++i) {
      const float middle = 0.5f * static_cast<float>(kMXFP4Values[i] + kMXFP4Values[i + 1]);
      level = V::SelectLess(V::Set(middle), magnitude, V::Set(kMXFP4Values[i + 1]), level);
    }
    return V::SelectLess(t, V::Zero(), V::Sub(V::Zero(), level), level);
  }
};

template <class V>
BAKESTONE_INLINE typename V::F InverseOrZero(typename V::F x) {
  const typename V::F inverse = V::Div(V::Set(1.0f), x);
  return V::SelectLess(V::Zero(), V::Abs(x), inverse, V::Zero());
}

// a / b where b > 0, else `other`.
template <class V>
BAKESTONE_INLINE typename V::F DivideOr(typename V::F a, typename V::F b, typename V::F other) {
  return V::SelectLess(V::Zero(), b, V::Div(a, b), other);
}

// ---- One scale ----

template <class V>
struct ScaleFit {
  typename V::F error;         // of the scale that was given
  typename V::F scale;         // best for the levels that it gave
  typename V::F level_energy;  // sum of w q^2
};

template <class V, class Levels, class G>
BAKESTONE_INLINE ScaleFit<V> FitScale(const G& g, typename V::F scale) {
  using F = typename V::F;
  const F inverse = InverseOrZero<V>(scale);
  F error = V::Zero(), xq = error, qq = error;
  for (int i = 0; i < G::kValues; ++i) {
    const F x = g.template X<V>(i), w = g.template W<V>(i);
    const F q = Levels::Nearest(V::Mul(x, inverse));
    const F rest = V::Sub(x, V::Mul(scale, q));
    const F wq = V::Mul(w, q);
    error = V::Fma(V::Mul(w, rest), rest, error);
    xq = V::Fma(wq, x, xq);
    qq = V::Fma(wq, q, qq);
  }
  return {error, DivideOr<V>(xq, qq, scale), qq};
}

template <class V>
struct BestScale {
  typename V::F error, scale;

  BAKESTONE_INLINE void Offer(typename V::F other_error, typename V::F other_scale) {
    scale = V::SelectLess(other_error, error, other_scale, scale);
    error = V::Min(other_error, error);
  }
};

// The value of largest magnitude of each lane, with its sign.
template <class V, class G>
BAKESTONE_INLINE typename V::F Peak(const G& g) {
  typename V::F peak = V::Zero();
  for (int i = 0; i < G::kValues; ++i) {
    const typename V::F x = g.template X<V>(i);
    peak = V::SelectLess(V::Abs(peak), V::Abs(x), x, peak);
  }
  return peak;
}

// Scales peak / v for v = first, first + step, ... (count of them): v is the level that the peak
// falls on.
struct LevelGrid {
  float first, step;
  int32_t count;
};

// kPolish: rounds of fitting after the grids.
template <class V, class Levels, int kPolish, class G>
BAKESTONE_INLINE BestScale<V> SearchScale(const G& g, const LevelGrid* grids, int num_grids) {
  using F = typename V::F;
  const F peak = Peak<V>(g);
  BestScale<V> best = {V::Set(3e38f), V::Zero()};
  BestScale<V> fitted = best;  // by the error that the fit would leave if no level changed
  for (int j = 0; j < num_grids; ++j) {
    for (int32_t c = 0; c < grids[j].count; ++c) {
      const float v = grids[j].first + static_cast<float>(c) * grids[j].step;
      const F scale = V::Mul(peak, V::Set(1.0f / v));
      const ScaleFit<V> fit = FitScale<V, Levels>(g, scale);
      best.Offer(fit.error, scale);
      const F moved = V::Sub(fit.scale, scale);
      fitted.Offer(V::Sub(fit.error, V::Mul(V::Mul(moved, moved), fit.level_energy)), fit.scale);
    }
  }
  F scale = fitted.scale;
  for (int round = 0; round < kPolish; ++round) {
    const ScaleFit<V> fit = FitScale<V, Levels>(g, scale);
    best.Offer(fit.error, scale);
    scale = fit.scale;
  }
  return best;
}

// ---- Scale and offset, levels 0 .. kMost ----

template <class V>
struct LineSums {
  typename V::F error;  // of the line that was given
  typename V::F r, rq, q,
      qq;  // sums of w times: the residual r = x - offset - scale q, r q, q, q^2
};

template <class V, int kMost, class G>
BAKESTONE_INLINE LineSums<V> SumLine(const G& g, typename V::F scale, typename V::F offset) {
  using F = typename V::F;
  const F inverse = InverseOrZero<V>(scale);
  const F shift = V::Mul(V::Sub(V::Zero(), offset), inverse);
  LineSums<V> s = {V::Zero(), V::Zero(), V::Zero(), V::Zero(), V::Zero()};
  for (int i = 0; i < G::kValues; ++i) {
    const F x = g.template X<V>(i), w = g.template W<V>(i);
    const F q = UniformLevels<V, 0, kMost>::Nearest(V::Fma(x, inverse, shift));
    const F r = V::Sub(V::Sub(x, V::Mul(scale, q)), offset);
    const F wr = V::Mul(w, r), wq = V::Mul(w, q);
    s.error = V::Fma(wr, r, s.error);
    s.r = V::Add(s.r, wr);
    s.rq = V::Fma(wr, q, s.rq);
    s.q = V::Add(s.q, wq);
    s.qq = V::Fma(wq, q, s.qq);
  }
  return s;
}

template <class V, class G>
BAKESTONE_INLINE typename V::F SumOfWeights(const G& g) {
  typename V::F sum = V::Zero();
  for (int i = 0; i < G::kValues; ++i) sum = V::Add(sum, g.template W<V>(i));
  return sum;
}

// Moves the line to where it is best for the levels that it gave: normal equations for the change,
// over residuals, so that nothing large cancels. kUpTo0: the offset may not be above 0.
template <class V, bool kUpTo0>
BAKESTONE_INLINE void Refit(const LineSums<V>& s, typename V::F sum_w, typename V::F* scale,
                            typename V::F* offset) {
  using F = typename V::F;
  const F determinant = V::Sub(V::Mul(sum_w, s.qq), V::Mul(s.q, s.q));
  const F by_scale = V::Sub(V::Mul(sum_w, s.rq), V::Mul(s.q, s.r));
  const F by_offset = V::Sub(V::Mul(s.qq, s.r), V::Mul(s.q, s.rq));
  F new_scale = V::Add(*scale, DivideOr<V>(by_scale, determinant, V::Zero()));
  F new_offset = V::Add(*offset, DivideOr<V>(by_offset, determinant, V::Zero()));
  if constexpr (kUpTo0) {
    // Above 0: the best with the offset at 0. sum of w x q = rq + scale qq + offset q.
    const F xq = V::Add(s.rq, V::Fma(*scale, s.qq, V::Mul(*offset, s.q)));
    new_scale = V::SelectLess(V::Zero(), new_offset, DivideOr<V>(xq, s.qq, *scale), new_scale);
    new_offset = V::Min(new_offset, V::Zero());
  }
  *scale = new_scale;
  *offset = new_offset;
}

template <class V>
struct BestLine {
  typename V::F error, scale, offset;

  BAKESTONE_INLINE void Offer(typename V::F e, typename V::F s, typename V::F o) {
    scale = V::SelectLess(e, error, s, scale);
    offset = V::SelectLess(e, error, o, offset);
    error = V::Min(e, error);
  }
};

// Where the search for a line starts: the range of the group is cut by `low` and `high` steps at
// its ends.
struct RangeCut {
  float low, high;
};

template <class V, int kMost, bool kUpTo0, int kRounds, int kPolish, class G>
BAKESTONE_INLINE BestLine<V> SearchLine(const G& g, const RangeCut* cuts, int num_cuts) {
  using F = typename V::F;
  F low = g.template X<V>(0), high = low;
  for (int i = 1; i < G::kValues; ++i) {
    const F x = g.template X<V>(i);
    low = V::Min(low, x);
    high = V::Max(high, x);
  }
  if constexpr (kUpTo0) low = V::Min(low, V::Zero());
  const F sum_w = SumOfWeights<V>(g), range = V::Sub(high, low);
  BestLine<V> best = {V::Set(3e38f), V::Zero(), low};
  for (int c = 0; c < num_cuts; ++c) {
    const float steps = static_cast<float>(kMost) + cuts[c].low + cuts[c].high;
    F scale = V::Mul(range, V::Set(1.0f / steps));
    F offset = V::Fma(scale, V::Set(cuts[c].low), low);
    if constexpr (kUpTo0) offset = V::Min(offset, V::Zero());
    for (int round = 0; round < kRounds; ++round) {
      const LineSums<V> sums = SumLine<V, kMost>(g, scale, offset);
      best.Offer(sums.error, scale, offset);
      Refit<V, kUpTo0>(sums, sum_w, &scale, &offset);
    }
  }
  F scale = best.scale, offset = best.offset;
  for (int round = 0; round < kPolish; ++round) {
    const LineSums<V> sums = SumLine<V, kMost>(g, scale, offset);
    best.Offer(sums.error, scale, offset);
    Refit<V, kUpTo0>(sums, sum_w, &scale, &offset);
  }
  return best;
}

}  // namespace
}  // namespace bakestone
