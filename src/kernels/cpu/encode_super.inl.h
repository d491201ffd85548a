// Super-blocks: the scales (and minima) of 8 or 16 groups are whole multiples of one f16 scale (and
// one f16 minimum). Each group is searched for by itself first; then base and multiples are chosen
// together, because rounding a group's scale to a multiple costs as much as a coarse search for it
// would. For a base, each group tries the multiples around its own optimum with its levels assigned
// anew; bases are tried on a grid, then fitted by least squares to the levels and multiples of the
// best, and tried again.
//
// The lanes of one super-block are neighbours; what is one number for a super-block is held in all
// its lanes.
#pragma once

#include "kernels/cpu/encode_search.inl.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

template <class V, int kGroups>
BAKESTONE_INLINE typename V::F SumOfSuperBlock(typename V::F x) {
  alignas(64) float lanes[kLanes];
  V::Store(lanes, x);
  for (int block = 0; block < kLanes; block += kGroups) {
    float sum = 0;
    for (int g = 0; g < kGroups; ++g) sum += lanes[block + g];
    for (int g = 0; g < kGroups; ++g) lanes[block + g] = sum;
  }
  return V::Load(lanes);
}

// The value of largest magnitude, with its sign.
template <class V, int kGroups>
BAKESTONE_INLINE typename V::F PeakOfSuperBlock(typename V::F x) {
  alignas(64) float lanes[kLanes];
  V::Store(lanes, x);
  for (int block = 0; block < kLanes; block += kGroups) {
    float peak = 0;
    for (int g = 0; g < kGroups; ++g) {
      const float value = lanes[block + g];
      if ((value < 0 ? -value : value) > (peak < 0 ? -peak : peak)) peak = value;
    }
    for (int g = 0; g < kGroups; ++g) lanes[block + g] = peak;
  }
  return V::Load(lanes);
}

template <class V>
BAKESTONE_INLINE typename V::F RoundToHalf(typename V::F x) {
  alignas(64) float lanes[kLanes];
  V::Store(lanes, x);
  for (float& lane : lanes) lane = F16ToFloat(FloatToF16(lane));
  return V::Load(lanes);
}

template <class V>
BAKESTONE_INLINE typename V::F Clamp(typename V::F x, float low, float high) {
  return V::Max(V::Min(x, V::Set(high)), V::Set(low));
}

// ---- Scale and minimum: x = (d * scale) * q - (dmin * min) ----

template <class V>
struct LineMultiples {
  typename V::F total;       // error of the super-block
  typename V::F d, dmin;     // as f16 holds them
  typename V::F scale, min;  // whole, 0 .. kTop

  BAKESTONE_INLINE void Offer(const LineMultiples& other) {
    d = V::SelectLess(other.total, total, other.d, d);
    dmin = V::SelectLess(other.total, total, other.dmin, dmin);
    scale = V::SelectLess(other.total, total, other.scale, scale);
    min = V::SelectLess(other.total, total, other.min, min);
    total = V::Min(other.total, total);
  }
};

// kTop: the largest multiple.
template <class V, int kGroups, int kMost, int kTop, class G>
BAKESTONE_INLINE LineMultiples<V> MultiplesOf(const G& g, typename V::F sum_w,
                                              const BestLine<V>& line, typename V::F d,
                                              typename V::F dmin) {
  using F = typename V::F;
  const F zero = V::Zero(), per_min = InverseOrZero<V>(dmin);
  const F near_scale =
      RoundToInteger<V>(Clamp<V>(V::Mul(line.scale, InverseOrZero<V>(d)), 0, kTop));
  const F near_min =
      RoundToInteger<V>(Clamp<V>(V::Mul(V::Sub(zero, line.offset), per_min), 0, kTop));
  BestLine<V> best = {V::Set(3e38f), zero, zero};
  for (int step = -1; step <= 1; ++step) {
    const F scale = Clamp<V>(V::Add(near_scale, V::Set(static_cast<float>(step))), 0, kTop);
    const F real_scale = V::Mul(d, scale);
    F min = near_min;
    for (int round = 0; round < 2; ++round) {
      const F offset = V::Sub(zero, V::Mul(dmin, min));
      const LineSums<V> sums = SumLine<V, kMost>(g, real_scale, offset);
      best.Offer(sums.error, scale, min);
      const F better = V::Add(offset, DivideOr<V>(sums.r, sum_w, zero));
      min = RoundToInteger<V>(Clamp<V>(V::Mul(V::Sub(zero, better), per_min), 0, kTop));
    }
  }
  return {SumOfSuperBlock<V, kGroups>(best.error), d, dmin, best.scale, best.offset};
}

// The bases that are best for the levels and multiples of `m`.
template <class V, int kGroups, int kMost, class G>
BAKESTONE_INLINE void RefitBases(const G& g, typename V::F sum_w, const LineMultiples<V>& m,
                                 typename V::F* d, typename V::F* dmin) {
  using F = typename V::F;
  const LineSums<V> s =
      SumLine<V, kMost>(g, V::Mul(m.d, m.scale), V::Sub(V::Zero(), V::Mul(m.dmin, m.min)));
  const auto sum = [](F x)
                       __attribute__((always_inline)) { return SumOfSuperBlock<V, kGroups>(x); };
  const F a = sum(V::Mul(V::Mul(m.scale, m.scale), s.qq));
  const F b = sum(V::Mul(V::Mul(m.scale, m.min), s.q));
  const F c = sum(V::Mul(V::Mul(m.min, m.min), sum_w));
  const F right_d = sum(V::Mul(m.scale, s.rq)), right_min = sum(V::Mul(m.min, s.r));
  // [a -b; b -c] (change of d, of dmin) = (right_d, right_min)
  const F determinant = V::Sub(V::Mul(a, c), V::Mul(b, b));
  const F by_d = V::Sub(V::Mul(c, right_d), V::Mul(b, right_min));
  const F by_min = V::Sub(V::Mul(b, right_d), V::Mul(a, right_min));
  const F alone = DivideOr<V>(right_d, a, V::Zero());  // where there is no minimum at all
  const F floor = V::Mul(V::Mul(a, c), V::Set(1e-6f));
  *d = V::Add(m.d, V::SelectLess(floor, determinant, V::Div(by_d, determinant), alone));
  *dmin = V::Add(m.dmin, V::SelectLess(floor, determinant, V::Div(by_min, determinant), V::Zero()));
  *d = RoundToHalf<V>(V::Max(*d, V::Zero()));
  *dmin = RoundToHalf<V>(V::Max(*dmin, V::Zero()));
}

template <class V, int kGroups, int kMost, int kTop, class G>
BAKESTONE_INLINE LineMultiples<V> FitSuperBlock(const G& g, const BestLine<V>& line) {
  using F = typename V::F;
  const F sum_w = SumOfWeights<V>(g), zero = V::Zero();
  const F top_scale = PeakOfSuperBlock<V, kGroups>(line.scale);
  const F top_min = V::Sub(zero, PeakOfSuperBlock<V, kGroups>(line.offset));
  const F default_min = RoundToHalf<V>(V::Mul(top_min, V::Set(1.0f / kTop)));
  LineMultiples<V> best = {V::Set(3e38f), zero, zero, zero, zero};
  for (int less = 0; less < 6; ++less) {
    const float multiple = static_cast<float>(kTop) * (1.0f - 0.02f * static_cast<float>(less));
    const F d = RoundToHalf<V>(V::Mul(top_scale, V::Set(1.0f / multiple)));
    best.Offer(MultiplesOf<V, kGroups, kMost, kTop>(g, sum_w, line, d, default_min));
  }
  for (int less = 1; less < 4; ++less) {
    const float multiple = static_cast<float>(kTop) * (1.0f - 0.03f * static_cast<float>(less));
    const F dmin = RoundToHalf<V>(V::Mul(top_min, V::Set(1.0f / multiple)));
    best.Offer(MultiplesOf<V, kGroups, kMost, kTop>(g, sum_w, line, best.d, dmin));
  }
  for (int round = 0; round < 2; ++round) {
    F d, dmin;
    RefitBases<V, kGroups, kMost>(g, sum_w, best, &d, &dmin);
    best.Offer(MultiplesOf<V, kGroups, kMost, kTop>(g, sum_w, line, d, dmin));
  }
  return best;
}

// The fast search: the nearest multiples of one pair of bases, which are then fitted to the levels.
template <class V, int kGroups, int kMost, int kTop, class G>
BAKESTONE_INLINE LineMultiples<V> RoundSuperBlock(const G& g, const BestLine<V>& line) {
  using F = typename V::F;
  const F sum_w = SumOfWeights<V>(g), zero = V::Zero();
  LineMultiples<V> m = {zero, zero, zero, zero, zero};
  m.d = RoundToHalf<V>(V::Mul(PeakOfSuperBlock<V, kGroups>(line.scale), V::Set(1.0f / kTop)));
  m.dmin = RoundToHalf<V>(
      V::Mul(V::Sub(zero, PeakOfSuperBlock<V, kGroups>(line.offset)), V::Set(1.0f / kTop)));
  const F per_min = InverseOrZero<V>(m.dmin);
  m.scale = RoundToInteger<V>(Clamp<V>(V::Mul(line.scale, InverseOrZero<V>(m.d)), 0, kTop));
  const F scale = V::Mul(m.d, m.scale);
  const LineSums<V> sums = SumLine<V, kMost>(g, scale, line.offset);
  const F offset = V::Add(line.offset, DivideOr<V>(sums.r, sum_w, zero));
  m.min = RoundToInteger<V>(Clamp<V>(V::Mul(V::Sub(zero, offset), per_min), 0, kTop));
  RefitBases<V, kGroups, kMost>(g, sum_w, m, &m.d, &m.dmin);
  return m;
}

// ---- Scale only: x = (d * scale) * q ----

template <class V>
struct ScaleMultiples {
  typename V::F total, d, scale;

  BAKESTONE_INLINE void Offer(const ScaleMultiples& other) {
    d = V::SelectLess(other.total, total, other.d, d);
    scale = V::SelectLess(other.total, total, other.scale, scale);
    total = V::Min(other.total, total);
  }
};

template <class V, class Levels, int kGroups, int kLow, int kHigh, class G>
BAKESTONE_INLINE ScaleMultiples<V> MultiplesOf(const G& g, typename V::F real, typename V::F d) {
  using F = typename V::F;
  const F near = RoundToInteger<V>(Clamp<V>(V::Mul(real, InverseOrZero<V>(d)), kLow, kHigh));
  BestScale<V> best = {V::Set(3e38f), V::Zero()};
  for (int step = -1; step <= 1; ++step) {
    const F scale = Clamp<V>(V::Add(near, V::Set(static_cast<float>(step))), kLow, kHigh);
    best.Offer(FitScale<V, Levels>(g, V::Mul(d, scale)).error, scale);
  }
  return {SumOfSuperBlock<V, kGroups>(best.error), d, best.scale};
}

// kLow: the lowest multiple; the group of largest scale takes it, or one near it, with d of either
// sign.
template <class V, class Levels, int kGroups, int kLow, int kHigh, class G>
BAKESTONE_INLINE ScaleMultiples<V> FitSuperBlock(const G& g, typename V::F real) {
  using F = typename V::F;
  const F peak = PeakOfSuperBlock<V, kGroups>(real);
  ScaleMultiples<V> best = {V::Set(3e38f), V::Zero(), V::Zero()};
  for (int less = 0; less < 8; ++less) {
    const float multiple = static_cast<float>(kLow) * (1.0f - 0.015f * static_cast<float>(less));
    const F d = RoundToHalf<V>(V::Mul(peak, V::Set(1.0f / multiple)));
    best.Offer(MultiplesOf<V, Levels, kGroups, kLow, kHigh>(g, real, d));
  }
  for (int round = 0; round < 2; ++round) {
    const ScaleFit<V> fit = FitScale<V, Levels>(g, V::Mul(best.d, best.scale));
    const F weighted = V::Mul(best.scale, fit.level_energy);
    const F numerator = SumOfSuperBlock<V, kGroups>(V::Mul(weighted, fit.scale));
    const F denominator = SumOfSuperBlock<V, kGroups>(V::Mul(weighted, best.scale));
    const F d = RoundToHalf<V>(DivideOr<V>(numerator, denominator, best.d));
    best.Offer(MultiplesOf<V, Levels, kGroups, kLow, kHigh>(g, real, d));
  }
  return best;
}

// The fast search: the nearest multiples of one base, which is then fitted to the levels.
template <class V, class Levels, int kGroups, int kLow, int kHigh, class G>
BAKESTONE_INLINE ScaleMultiples<V> RoundSuperBlock(const G& g, typename V::F real) {
  using F = typename V::F;
  const F peak = PeakOfSuperBlock<V, kGroups>(real);
  ScaleMultiples<V> m = {V::Zero(), V::Zero(), V::Zero()};
  m.d = RoundToHalf<V>(V::Mul(peak, V::Set(1.0f / kLow)));
  m.scale = RoundToInteger<V>(Clamp<V>(V::Mul(real, InverseOrZero<V>(m.d)), kLow, kHigh));
  const ScaleFit<V> fit = FitScale<V, Levels>(g, V::Mul(m.d, m.scale));
  const F weighted = V::Mul(m.scale, fit.level_energy);
  const F numerator = SumOfSuperBlock<V, kGroups>(V::Mul(weighted, fit.scale));
  const F denominator = SumOfSuperBlock<V, kGroups>(V::Mul(weighted, m.scale));
  m.d = RoundToHalf<V>(DivideOr<V>(numerator, denominator, m.d));
  return m;
}

}  // namespace
}  // namespace bakestone
