// Attention's products over pages of bf16, f16 and f32: pair order, one lane a key (scores) or a
// channel (values). A pair is two channels of a key, or two slots of a value.
#pragma once

#include "kernels/cpu/attention.inl.h"

namespace bakestone {
namespace {

// How pages of an element are multiplied: Left is what a row (a query, or probabilities) is held
// as, and Sums makes sum[i][v] = even + odd over n (even, <= 32) steps of a[i][k] * b[v][k],
// `second` bytes from one step to the next but for elements whose pairs are interleaved; lanes of
// the last vector: those below `lanes`. kFetch: what lies at `next` as b does is fetched meanwhile.
//
// Here: fused multiply-adds in f32, and floats on the left.
template <class V, class E>
struct FmaPairs {
  using F = typename V::F;
  using Left = float;

  BAKESTONE_INLINE static constexpr int64_t LeftOf(int64_t n) { return n; }  // that hold n values
  BAKESTONE_INLINE static void Put(const float* x, int64_t n, Left* out) {
    for (int64_t i = 0; i < n; i += 16) {
      V::StoreN(out + i, E::Round(V::LoadN(x + i, n - i)), n - i);
    }
  }
  // 32 probabilities, which are rounded.
  BAKESTONE_INLINE static const Left* OfProbabilities(const float* p, Left*) { return p; }

  template <bool kFetch, int kR, int kW, bool kPart = false>
  BAKESTONE_INLINE static void Sums(const Left* const (&a)[kR], const uint8_t* const (&b)[kW],
                                    const uint8_t* const (&next)[kW], int64_t second, int64_t n,
                                    F (&sum)[kR][kW], int64_t lanes = 16) {
    F even[kR][kW], odd[kR][kW];
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) even[i][v] = odd[i][v] = V::Zero();
    }
    int64_t offset = 0;
#pragma GCC unroll 2
    for (int64_t k = 0; k < n; k += 2, offset += 2 * second) {
      F b0[kW], b1[kW];
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) {
        if constexpr (kPart) {
          E::LoadN(b[v] + offset, second, lanes, b0[v], b1[v]);
        } else {
          E::Load(b[v] + offset, second, b0[v], b1[v]);
        }
        if constexpr (kFetch) {
          FetchLine(next[v] + offset, false);
          if constexpr (E::kTwoHalves) FetchLine(next[v] + offset + second, false);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
        const auto a0 = V::Set(a[i][k]), a1 = V::Set(a[i][k + 1]);
#pragma GCC unroll 8
        for (int v = 0; v < kW; ++v) {
          even[i][v] = V::Fma(b0[v], a0, even[i][v]);
          odd[i][v] = V::Fma(b1[v], a1, odd[i][v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) sum[i][v] = V::Add(even[i][v], odd[i][v]);
    }
  }
};

// Sixteen pairs from p; `second` bytes on from p is the other half of each, unless they are
// interleaved.
template <class V>
struct ElementBF16 : FmaPairs<V, ElementBF16<V>> {
  static constexpr int64_t kBytes = 2,
                           kLane = 4;  // lane: bytes from one key, or channel, to the next
  static constexpr bool kTwoHalves = false;
  BAKESTONE_INLINE static typename V::F Round(typename V::F x) { return RoundBF16<V>(x); }
  BAKESTONE_INLINE static typename V::F Probability(typename V::F x) {  // x <= 0
    return ExpOrZeroBF16<V>(x);
  }
  BAKESTONE_INLINE static void Load(const uint8_t* p, int64_t, typename V::F& even,
                                    typename V::F& odd) {
    even = V::LoadEven(p);
    odd = V::LoadOdd(p);
  }
  BAKESTONE_INLINE static void LoadN(const uint8_t* p, int64_t, int64_t n, typename V::F& even,
                                     typename V::F& odd) {
    const auto pairs = V::Bits(V::LoadN(reinterpret_cast<const float*>(p), n));
    even = V::OfBits(V::template Shl<16>(pairs));
    odd = V::OfBits(V::AndI(pairs, V::SetI(static_cast<int32_t>(0xFFFF0000u))));
  }
};

template <class V>
struct ElementF16 : FmaPairs<V, ElementF16<V>> {
  static constexpr int64_t kBytes = 2, kLane = 2;
  static constexpr bool kTwoHalves = true;
  BAKESTONE_INLINE static typename V::F Round(typename V::F x) { return x; }
  BAKESTONE_INLINE static typename V::F Probability(typename V::F x) { return ExpOrZero<V>(x); }
  BAKESTONE_INLINE static void Load(const uint8_t* p, int64_t second, typename V::F& even,
                                    typename V::F& odd) {
    even = V::LoadHalf(p);
    odd = V::LoadHalf(p + second);
  }
  BAKESTONE_INLINE static void LoadN(const uint8_t* p, int64_t second, int64_t n,
                                     typename V::F& even, typename V::F& odd) {
    alignas(64) uint8_t halves[64] = {};
    for (int64_t i = 0; i < 2 * n; ++i) {
      halves[i] = p[i];
      halves[32 + i] = p[second + i];
    }
    Load(halves, 32, even, odd);
  }
};

template <class V>
struct ElementF32 : FmaPairs<V, ElementF32<V>> {
  static constexpr int64_t kBytes = 4, kLane = 4;
  static constexpr bool kTwoHalves = true;
  BAKESTONE_INLINE static typename V::F Round(typename V::F x) { return x; }
  BAKESTONE_INLINE static typename V::F Probability(typename V::F x) { return Exp<V>(x); }
  BAKESTONE_INLINE static void Load(const uint8_t* p, int64_t second, typename V::F& even,
                                    typename V::F& odd) {
    even = V::Load(reinterpret_cast<const float*>(p));
    odd = V::Load(reinterpret_cast<const float*>(p + second));
  }
  BAKESTONE_INLINE static void LoadN(const uint8_t* p, int64_t second, int64_t n,
                                     typename V::F& even, typename V::F& odd) {
    even = V::LoadN(reinterpret_cast<const float*>(p), n);
    odd = V::LoadN(reinterpret_cast<const float*>(p + second), n);
  }
};

template <class V, template <class> class Element>
class FloatPages {
 public:
  using E = Element<V>;
  using F = typename V::F;
  using Left = typename E::Left;
  using Tile = TileRows<V>;

  BAKESTONE_INLINE static F Probability(F x) { return E::Probability(x); }

  BAKESTONE_INLINE void Prepare(const Tile& t, ScratchFloats& floats) {
    static_assert(sizeof(Left) == sizeof(float));
    q_stride_ = E::LeftOf(t.dim);
    q_ = reinterpret_cast<Left*>(floats.Take(t.count * q_stride_));
    head_offset_ = t.kv_head * t.dim * kKvBlock * E::kBytes;
    for (int64_t row = 0; row < t.count; ++row) E::Put(t.Query(row), t.dim, q_ + row * q_stride_);
  }

  // The scores of up to kRegisterRows rows from `row` on, of `left`; returns how many.
  BAKESTONE_INLINE int64_t Scores(const Tile& t, int64_t row, int64_t left, int64_t j0) const {
    return ForRows(left, [&](auto rows) __attribute__((always_inline)) {
      constexpr int kR = decltype(rows)::value;
      row == 0 ? ScoreRows<kR, true>(t, row, j0) : ScoreRows<kR, false>(t, row, j0);
    });
  }
  BAKESTONE_INLINE int64_t AddValues(const Tile& t, int64_t row, int64_t left, int64_t j0) const {
    return ForRows(left, [&](auto rows) __attribute__((always_inline)) {
      constexpr int kR = decltype(rows)::value;
      row == 0 ? ValueRows<kR, true>(t, row, j0) : ValueRows<kR, false>(t, row, j0);
    });
  }

 private:
  template <int kR>
  struct Rows {
    static constexpr int value = kR;
  };

  template <class Body>
  BAKESTONE_INLINE static int64_t ForRows(int64_t left, const Body& body) {
    switch (left) {
      case 1:
        body(Rows<1>());
        return 1;
      case 2:
        body(Rows<2>());
        return 2;
      case 3:
        body(Rows<3>());
        return 3;
      default:
        break;
    }
    if constexpr (kRegisterRows<V> > 3) {
      switch (left) {
        case 4:
          body(Rows<4>());
          return 4;
        case 5:
          body(Rows<5>());
          return 5;
        default:
          body(Rows<6>());
          return 6;
      }
    } else {
      body(Rows<3>());
      return 3;
    }
  }

  template <int kR, bool kFetch>
  [[gnu::noinline]] void ScoreRows(const Tile& t, int64_t row, int64_t j0) const {
    const int64_t end = t.end[row + kR - 1];  // the last row sees the most
    const uint8_t *page[2], *next_page[2];
    for (int64_t i = 0; i < 2; ++i) {
      const int64_t at = j0 / kKvBlock + (end > kKvBlock ? i : 0);
      page[i] = t.run.k_pages[at] + head_offset_;
      next_page[i] = kFetch ? t.Next(t.run.k_pages, at) + head_offset_ : page[i];
    }
    constexpr int kW = V::kPairWidth;
    if constexpr (kW == 2 && kR <= 3) {  // few rows: twice the width keeps as many chains in flight
      if (end > kKvBlock) {
        const uint8_t* keys[4] = {page[0], page[0] + 16 * E::kLane, page[1],
                                  page[1] + 16 * E::kLane};
        const uint8_t* next[4] = {next_page[0], next_page[0] + 16 * E::kLane, next_page[1],
                                  next_page[1] + 16 * E::kLane};
        ScoreVectors<kR, 4, kFetch>(t, row, keys, next, 0);
        return;
      }
    }
    int64_t j = 0;
    for (; j + 16 * (kW - 1) < end; j += 16 * kW) {
      const uint8_t *keys[kW], *next[kW];
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) {
        const int64_t lane = (j % kKvBlock + 16 * v) * E::kLane;
        keys[v] = page[j / kKvBlock] + lane;
        next[v] = next_page[j / kKvBlock] + lane;
      }
      ScoreVectors<kR, kW, kFetch>(t, row, keys, next, j);
    }
    for (; j < end; j += 16) {
      const uint8_t* keys[1] = {page[j / kKvBlock] + j % kKvBlock * E::kLane};
      ScoreVectors<kR, 1, false>(t, row, keys, keys, j);
    }
  }

  template <int kR, int kW, bool kFetch>
  BAKESTONE_INLINE void ScoreVectors(const Tile& t, int64_t row, const uint8_t* (&keys)[kW],
                                     const uint8_t* (&next)[kW], int64_t j) const {
    const Left* q[kR];
    for (int i = 0; i < kR; ++i) q[i] = q_ + (row + i) * q_stride_;
    constexpr int64_t kSecond = kKvBlock * E::kBytes;
    const auto scale = V::Set(t.args.scale);
    float* out = t.scores + row * kKvStep + j;
    for (int64_t d = 0; d < t.dim; d += 32) {
      F sum[kR][kW];
      E::template Sums<kFetch>(q, keys, next, kSecond, t.dim - d < 32 ? t.dim - d : 32, sum);
      const bool last = d + 32 >= t.dim;
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
        q[i] += E::LeftOf(32);
#pragma GCC unroll 8
        for (int v = 0; v < kW; ++v) {
          float* s = out + i * kKvStep + 16 * v;
          const auto total = V::Add(d == 0 ? V::Zero() : V::Load(s), sum[i][v]);
          V::Store(s, last ? V::Mul(total, scale) : total);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) {
        keys[v] += 32 * kSecond;
        if constexpr (kFetch) next[v] += 32 * kSecond;
      }
    }
  }

  // acc = acc * rescale, then + even + odd for each block that the row sees.
  template <int kR, bool kFetch>
  [[gnu::noinline]] void ValueRows(const Tile& t, int64_t row, int64_t j0) const {
    for (int64_t block = 0; block < kKvStep; block += kKvBlock) {
      bool sees[kR], any = false;
      for (int i = 0; i < kR; ++i) any |= sees[i] = t.Sees(row + i, block);
      if (!any && block != 0) continue;
      const int64_t page = (j0 + block) / kKvBlock;
      // Slots beyond what the last row sees: their probabilities are zero and change no sum.
      const int64_t seen = t.end[row + kR - 1] - block;
      const Block at{block, seen < kKvBlock ? (seen + 1) / 2 * 2 : kKvBlock,
                     t.run.v_pages[page] + head_offset_,
                     kFetch ? t.Next(t.run.v_pages, page) + head_offset_ : nullptr};
      alignas(64) Left space[kR][32];
      const Left* p[kR];
      for (int i = 0; i < kR; ++i) {
        p[i] = E::OfProbabilities(t.scores + (row + i) * kKvStep + block, space[i]);
      }
      constexpr int kW = V::kPairWidth;
      int64_t d = 0;
      if constexpr (kW == 2 && kR <= 3) {
        for (; d + 64 <= t.dim; d += 64) ValueVectors<kR, 4, kFetch>(t, row, p, at, d, sees);
      }
      for (; d + 16 * kW <= t.dim; d += 16 * kW) {
        ValueVectors<kR, kW, kFetch>(t, row, p, at, d, sees);
      }
      for (; d + 16 <= t.dim; d += 16) ValueVectors<kR, 1, false>(t, row, p, at, d, sees);
      if (d < t.dim) ValueVectors<kR, 1, false, true>(t, row, p, at, d, sees);
    }
  }

  struct Block {
    int64_t begin, slots;  // of the step
    const uint8_t *page, *next;
  };

  template <int kR, int kW, bool kFetch, bool kPart = false>
  BAKESTONE_INLINE void ValueVectors(const Tile& t, int64_t row, const Left* const (&p)[kR],
                                     const Block& block, int64_t d, const bool (&sees)[kR]) const {
    const uint8_t *values[kW], *next[kW];
    for (int v = 0; v < kW; ++v) {
      values[v] = block.page + (d + 16 * v) * E::kLane;
      if constexpr (kFetch) next[v] = block.next + (d + 16 * v) * E::kLane;
    }
    F sum[kR][kW];
    E::template Sums<kFetch, kR, kW, kPart>(p, values, next, t.dim * E::kBytes, block.slots, sum,
                                            t.dim - d);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      float* acc = t.acc + (row + i) * t.width + d;
      const auto rescale = V::Set(t.rescale[row + i]);
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) {
        auto sofar = V::Load(acc + 16 * v);
        if (block.begin == 0) sofar = V::Mul(sofar, rescale);
        V::Store(acc + 16 * v, sees[i] ? V::Add(sofar, sum[i][v]) : sofar);
      }
    }
  }

  Left* q_ = nullptr;  // [count][q_stride]
  int64_t q_stride_ = 0, head_offset_ = 0;
};

template <class V>
using PagesBF16 = FloatPages<V, ElementBF16>;
template <class V>
using PagesF16 = FloatPages<V, ElementF16>;
template <class V>
using PagesF32 = FloatPages<V, ElementF32>;

}  // namespace
}  // namespace bakestone
