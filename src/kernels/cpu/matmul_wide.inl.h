// Matrix products of many rows with integer panels, for vector classes of 32 registers and a dot
// product that adds to 32 bits: six rows, or four, by two strips at a time. Every activation that
// is broadcast meets two vectors of weights and the sums stay in registers, so a tile is as fast
// as its multiplications, of which the scales are 2 of 10 for 32 k (3 of 11 with minima);
// unpacking the weights runs beside them. Two dot products a cycle that wait for four take eight
// chains; twelve leave room for what goes wrong (on one core of Zen 5, of 547 GMAC/s: Q8_0 383 in
// fours and 413 in sixes, Q4_K 353 and 378, Q4_1 358 and 368, Q4_0 385 and 390). Where unpacking is
// much (super-blocks) and rows are many, strips are expanded once for kWideBlock rows
// (expand.inl.h). The same arithmetic as matmul.inl.h, the same bits.
#pragma once

#include "kernels/cpu/expand.inl.h"
#include "kernels/cpu/matmul.inl.h"

namespace bakestone {
namespace {

// Rows that pass before the next pair of strips. Their activations may exceed the L2 cache: they
// come as few long streams (k = 8192 on one core: 64 rows 158 GMAC/s, 256 and more 165).
constexpr int64_t kWideBlock = 256;

// Strips as the panel has them, unpacked in the tile.
template <class V, PanelType kType>
struct PanelStrip {
  using T = Traits<kType>;
  static constexpr bool kSuper = PanelShapeOf(kType).block == 256;
  static constexpr bool kFolded = false;
  static constexpr int kScales = !kSuper ? 0 : T::kBy16 ? 2 : 1;

  StripPlanes planes;

  PanelStrip(const Panel& panel, int64_t strip, uint8_t*) : planes(PlanesOf(panel, strip)) {}

  template <int kG>
  BAKESTONE_INLINE typename V::B Weights(int64_t group) const {
    return UnpackGroup<V, kType, kG>(planes.low + group * T::kLow, planes.high + group * T::kHigh);
  }
  BAKESTONE_INLINE const uint8_t* Side(int64_t group) const {
    return planes.side + group / T::kShare * PanelShapeOf(kType).side;
  }
  BAKESTONE_INLINE typename V::I Scale(int64_t group, int part) const {
    return GroupScale<V, kType>(Side(group), static_cast<int>(group % 8) * kScales + part);
  }
  BAKESTONE_INLINE typename V::F D(int64_t step) const {
    if constexpr (kSuper) return V::LoadHalf(Side(4 * step));
    return BlockScale<V, kType>(Side(step));
  }
  BAKESTONE_INLINE typename V::F M(int64_t step) const {
    return V::LoadHalf(Side(kSuper ? 4 * step : step) + 32);
  }
  BAKESTONE_INLINE typename V::I MinPair(int64_t step, int i) const {
    constexpr int kPairs = T::kBy16 ? 4 : 2;
    const int first = 2 * (static_cast<int>(step % 2) * kPairs + i);
    const uint8_t* side = Side(4 * step);
    return Pairs<V>(GroupMin<V, kType>(side, first), GroupMin<V, kType>(side, first + 1));
  }
};

// What ExpandStrip makes of one.
template <class V, PanelType kType>
struct ExpandedStrip {
  using E = Expanded<kType>;
  static constexpr bool kSuper = E::kSuper, kFolded = E::kFolded;
  static constexpr int kScales = E::kScales;

  const uint8_t *w, *minima;

  ExpandedStrip(const Panel& panel, int64_t strip, uint8_t* space)
      : w(space), minima(space + E::Steps(panel.k) * E::kStepBytes) {
    ExpandStrip<V, kType>(panel, strip, space);
  }

  BAKESTONE_INLINE const uint8_t* Group(int64_t group) const {
    return w + group / E::kGroups * E::kStepBytes + group % E::kGroups * E::kGroupBytes;
  }
  template <int kG>
  BAKESTONE_INLINE typename V::B Weights(int64_t group) const {
    return V::LoadB(Group(group) + 64 * kG);
  }
  BAKESTONE_INLINE typename V::I Scale(int64_t group, int part) const {
    return V::AsI(V::LoadB(Group(group) + 64 * (8 + part)));
  }
  BAKESTONE_INLINE typename V::F D(int64_t step) const {
    const uint8_t* at = w + step * E::kStepBytes + E::kGroups * E::kGroupBytes;
    return V::Load(reinterpret_cast<const float*>(at));
  }
  BAKESTONE_INLINE typename V::F M(int64_t step) const {
    const uint8_t* at =
        kSuper ? minima + step * E::kMinBytes + 64 * E::kPairs : w + step * E::kStepBytes + 576;
    return V::Load(reinterpret_cast<const float*>(at));
  }
  BAKESTONE_INLINE typename V::I MinPair(int64_t step, int i) const {
    return V::AsI(V::LoadB(minima + step * E::kMinBytes + 64 * i));
  }
};

// What a step (32 k, of super-blocks 128 k) needs of each row beside the quants, as 32-bit words:
// the number that an integer sum begins with, -bias * (sum of a), for every scale; or the sums of a
// as pairs of int16, to meet the minima.
template <class Strip, PanelType kType>
struct RowWords {
  static constexpr bool kMinima = Strip::kSuper && Traits<kType>::kMin;
  static constexpr int kPerStep = kMinima              ? (Traits<kType>::kBy16 ? 4 : 2)
                                  : Strip::kScales > 0 ? 4 * Strip::kScales
                                                       : 1;
};

// Words of rows [m0, m1): [rows][steps][kPerStep].
template <class V, PanelType kType, class Strip>
[[gnu::noinline]] void MakeRowWords(const Activations& x, int64_t m0, int64_t m1, int32_t* words) {
  using W = RowWords<Strip, kType>;
  constexpr int kBias = Strip::kFolded ? 128 : DotBias<V, kType>();
  const int64_t sums = Strip::kSuper ? x.k / 16 : x.k / 32;
  const int16_t* sum = x.sum + m0 * sums;
  const int64_t count = (m1 - m0) * sums;
  if constexpr (W::kMinima) {
    auto* pairs = reinterpret_cast<int16_t*>(words);
    constexpr int kEach = Traits<kType>::kBy16 ? 1 : 2;
    for (int64_t i = 0; i < count / kEach; ++i) {
      pairs[i] = static_cast<int16_t>(kEach == 1 ? sum[i] : sum[2 * i] + sum[2 * i + 1]);
    }
  } else if constexpr (kBias != 0) {
    constexpr int kEach = !Strip::kSuper ? 1 : 8 / W::kPerStep;
    for (int64_t i = 0; i < count / kEach; ++i) {
      int32_t total = 0;
      for (int j = 0; j < kEach; ++j) total += sum[kEach * i + j];
      words[i] = -kBias * total;
    }
  }
}

// Fetches the next pair of strips while this one is multiplied, a little in every step, so that
// memory and products are at work together. (On one core of Zen 4, weights in memory, 16 rows,
// GMAC/s: in one go before each tile 135, a little in every step 168.)
struct FetchAhead {
  const uint8_t *first, *second;
  int64_t lines;  // of each, per step
  bool far;
  FetchNext* next;

  FetchAhead(const uint8_t* first_strip, const uint8_t* second_strip, int64_t strip_bytes,
             int64_t steps, FetchNext* next)
      : first(first_strip),
        second(second_strip),
        lines((strip_bytes / 64 + steps - 1) / steps),
        far(strip_bytes >= kFarStrip),
        next(next) {}
  BAKESTONE_INLINE void Step() {
    for (int64_t i = 0; i < lines; ++i, first += 64, second += 64) {
      FetchLine(first, far);
      FetchLine(second, far);
    }
    next->Step();
  }
};

// Where a tile's results go: y[strip] + row * stride.
struct WideOut {
  float* y[2];
  int64_t stride;
  bool add;           // y += r
  const float* bias;  // of both strips, or null; r += bias before
};

template <class V, int kR>
BAKESTONE_INLINE void StoreWide(const WideOut& out, typename V::F (&r)[kR][2]) {
  if (out.bias != nullptr) {
    const auto bias0 = V::Load(out.bias), bias1 = V::Load(out.bias + kStripRows);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      r[i][0] = V::Add(r[i][0], bias0);
      r[i][1] = V::Add(r[i][1], bias1);
    }
  }
  if (out.add) {
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      r[i][0] = V::Add(V::Load(out.y[0] + i * out.stride), r[i][0]);
      r[i][1] = V::Add(V::Load(out.y[1] + i * out.stride), r[i][1]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
    V::Store(out.y[0] + i * out.stride, r[i][0]);
    V::Store(out.y[1] + i * out.stride, r[i][1]);
  }
}

template <class T, int kR>
BAKESTONE_INLINE void FillWide(T (&r)[kR][2], T value) {
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) r[i][0] = r[i][1] = value;
}

// The minima's sums, which are made in a loop of their own: with the other sums they would not fit
// into the registers.
template <class V, int kR>
BAKESTONE_INLINE void StoreMinima(const typename V::F (&b)[kR][2], float (&minima)[kR][2][16]) {
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
    V::Store(minima[i][0], b[i][0]);
    V::Store(minima[i][1], b[i][1]);
  }
}

// c += groups [kG, kEnd), of four k each, of all rows by both strips.
template <class V, int kG, int kEnd, class Strip, int kR>
BAKESTONE_INLINE void WideDot(const Strip& first, const Strip& second, int64_t group,
                              const int8_t* q, int64_t stride, typename V::I (&c)[kR][2]) {
  if constexpr (kG < kEnd) {
    const auto w0 = first.template Weights<kG>(group), w1 = second.template Weights<kG>(group);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      const auto a = V::LoadWord(q + i * stride + 4 * kG);
      c[i][0] = V::DotWord(c[i][0], w0, a);
      c[i][1] = V::DotWord(c[i][1], w1, a);
    }
    WideDot<V, kG + 1, kEnd>(first, second, group, q, stride, c);
  }
}

// The number that each row's sums begin with.
template <class V, int kR>
BAKESTONE_INLINE void BeginWide(const int32_t* words, int64_t stride, typename V::I (&c)[kR][2]) {
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) c[i][0] = c[i][1] = V::SetI(words[i * stride]);
}

// a[row][strip] = fma(float(c) * d[strip], scale[row], a)
template <class V, int kR>
BAKESTONE_INLINE void ScaleWide(const typename V::I (&c)[kR][2], typename V::F d0, typename V::F d1,
                                const float* scale, int64_t stride, typename V::F (&a)[kR][2]) {
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
    const auto da = V::Set(scale[i * stride]);
    a[i][0] = V::Fma(V::Mul(V::ToFloat(c[i][0]), d0), da, a[i][0]);
    a[i][1] = V::Fma(V::Mul(V::ToFloat(c[i][1]), d1), da, a[i][1]);
  }
}

// b = fma(m, sa, b) over all steps of a type of 32-blocks with minima.
template <class V, class Strip, int kR>
BAKESTONE_INLINE void WideMinima32(const Strip& first, const Strip& second, const float* scaled_sum,
                                   int64_t steps, typename V::F (&b)[kR][2]) {
  FillWide(b, V::Zero());
  for (int64_t step = 0; step < steps; ++step) {
    const auto min0 = first.M(step), min1 = second.M(step);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      const auto sa = V::Set(scaled_sum[i * steps + step]);
      b[i][0] = V::Fma(min0, sa, b[i][0]);
      b[i][1] = V::Fma(min1, sa, b[i][1]);
    }
  }
}

// Rows [m0, m0 + kR) by two strips of a type of 32-blocks; words: those of row m0 on.
template <class V, PanelType kType, int kR, class Strip>
[[gnu::noinline]] void WideTile32(const Activations& x, const Strip& first, const Strip& second,
                                  const int32_t* words, int64_t m0, const WideOut& out,
                                  FetchAhead& ahead) {
  constexpr bool kMin = Traits<kType>::kMin;
  const int64_t steps = x.k / 32;
  const int8_t* q = x.q + m0 * x.stride;
  const float* scale = x.scale + m0 * steps;
  alignas(64) float minima[kMin ? kR : 1][2][16];
  if constexpr (kMin) {
    typename V::F b[kR][2];
    WideMinima32<V>(first, second, x.scaled_sum + m0 * steps, steps, b);
    StoreMinima<V>(b, minima);
  }
  typename V::F a[kR][2];
  FillWide(a, V::Zero());
  for (int64_t step = 0; step < steps; ++step, q += 32) {
    ahead.Step();
    typename V::I c[kR][2];
    if constexpr (DotBias<V, kType>() == 0) {
      FillWide(c, V::SetI(0));
    } else {
      BeginWide<V>(words + step, steps, c);
    }
    WideDot<V, 0, 8>(first, second, step, q, x.stride, c);
    ScaleWide<V>(c, first.D(step), second.D(step), scale + step, steps, a);
  }
  if constexpr (kMin) {
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      a[i][0] = V::Add(a[i][0], V::Load(minima[i][0]));
      a[i][1] = V::Add(a[i][1], V::Load(minima[i][1]));
    }
  }
  StoreWide<V>(out, a);
}

// b = fma(float(I2) * dmin, da, b) over all steps of a type of super-blocks with minima.
template <class V, PanelType kType, class Strip, int kR>
BAKESTONE_INLINE void WideMinima(const Activations& x, const Strip& first, const Strip& second,
                                 const int32_t* words, const float* scale,
                                 typename V::F (&b)[kR][2]) {
  constexpr int kPairs = RowWords<Strip, kType>::kPerStep;
  const int64_t steps = x.k / 128;
  FillWide(b, V::Zero());
  for (int64_t step = 0; step < steps; ++step) {
    typename V::I i2[kR][2];
    FillWide(i2, V::SetI(0));
#pragma GCC unroll 4
    for (int j = 0; j < kPairs; ++j) {
      const auto min0 = first.MinPair(step, j), min1 = second.MinPair(step, j);
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
        const auto* sums =
            reinterpret_cast<const int16_t*>(words + (i * steps + step) * kPairs + j);
        i2[i][0] = V::DotPairs(i2[i][0], min0, sums);
        i2[i][1] = V::DotPairs(i2[i][1], min1, sums);
      }
    }
    ScaleWide<V>(i2, first.M(step), second.M(step), scale + step, steps, b);
  }
}

// c[row][strip] = i1 + c * scale
template <class V, int kR>
BAKESTONE_INLINE void AddScaledSums(const typename V::I (&c)[kR][2], typename V::I s0,
                                    typename V::I s1, typename V::I (&i1)[kR][2]) {
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
    i1[i][0] = V::AddI(i1[i][0], V::MulI(c[i][0], s0));
    i1[i][1] = V::AddI(i1[i][1], V::MulI(c[i][1], s1));
  }
}

// The integer sums of 128 k.
template <class V, PanelType kType, class Strip, int kR>
BAKESTONE_INLINE void WideSums(const Strip& first, const Strip& second, int64_t step,
                               const int8_t* q, int64_t stride, const int32_t* words,
                               int64_t word_stride, FetchAhead& ahead, typename V::I (&i1)[kR][2]) {
  constexpr bool kBegin =
      !RowWords<Strip, kType>::kMinima && (Strip::kFolded || DotBias<V, kType>() != 0);
  FillWide(i1, V::SetI(0));
  if constexpr (Strip::kFolded && kBegin) BeginWide<V>(words, word_stride, i1);
  for (int64_t group = 4 * step; group < 4 * step + 4; ++group, q += 32) {
    ahead.Step();
    if constexpr (Strip::kFolded) {
      WideDot<V, 0, 8>(first, second, group, q, stride, i1);
      continue;
    }
    typename V::I c[kR][2];
    FillWide(c, V::SetI(0));
    if constexpr (kBegin) BeginWide<V>(words++, word_stride, c);
    if constexpr (Strip::kScales == 2) {
      WideDot<V, 0, 4>(first, second, group, q, stride, c);
      AddScaledSums<V>(c, first.Scale(group, 0), second.Scale(group, 0), i1);
      FillWide(c, V::SetI(0));
      if constexpr (kBegin) BeginWide<V>(words++, word_stride, c);
      WideDot<V, 4, 8>(first, second, group, q, stride, c);
      AddScaledSums<V>(c, first.Scale(group, 1), second.Scale(group, 1), i1);
    } else {
      WideDot<V, 0, 8>(first, second, group, q, stride, c);
      AddScaledSums<V>(c, first.Scale(group, 0), second.Scale(group, 0), i1);
    }
  }
}

template <class V, PanelType kType, int kR, class Strip>
[[gnu::noinline]] void WideTileSuper(const Activations& x, const Strip& first, const Strip& second,
                                     const int32_t* words, int64_t m0, const WideOut& out,
                                     FetchAhead& ahead) {
  constexpr bool kMin = Traits<kType>::kMin;
  constexpr int kWords = RowWords<Strip, kType>::kPerStep;
  const int64_t steps = x.k / 128;
  const int8_t* q = x.q + m0 * x.stride;
  const float* scale = x.scale + m0 * steps;
  alignas(64) float minima[kMin ? kR : 1][2][16];
  if constexpr (kMin) {
    typename V::F b[kR][2];
    WideMinima<V, kType>(x, first, second, words, scale, b);
    StoreMinima<V>(b, minima);
  }
  typename V::F a[kR][2];
  FillWide(a, V::Zero());
  for (int64_t step = 0; step < steps; ++step) {
    typename V::I i1[kR][2];
    WideSums<V, kType>(first, second, step, q + 128 * step, x.stride, words + step * kWords,
                       steps * kWords, ahead, i1);
    ScaleWide<V>(i1, first.D(step), second.D(step), scale + step, steps, a);
  }
  if constexpr (kMin) {
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      a[i][0] = V::Sub(a[i][0], V::Load(minima[i][0]));
      a[i][1] = V::Sub(a[i][1], V::Load(minima[i][1]));
    }
  }
  StoreWide<V>(out, a);
}

// Two strips that are computed together: neighbours of one panel, or the same of gate and up.
struct StripPair {
  const Panel *first_panel, *second_panel;
  int64_t first, second;

  BAKESTONE_INLINE StripPair(const MatMulArgs& args, int64_t strip)
      : first_panel(&args.panel), second_panel(&args.panel), first(strip), second(strip + 1) {
    if (args.epilogue != Epilogue::kSwiGlu) return;
    second_panel = &args.up;
    second = strip;
  }
  BAKESTONE_INLINE int64_t next() const { return first + 1 > second ? first + 1 : second + 1; }
};

// The scratch of a call, as MatMulScratchBytes provides it: k * (42 + 64) bytes at most, and 32
// KiB.
template <class Strip, PanelType kType>
struct WideScratch {
  uint8_t *w0, *w1;  // expanded strips
  float* results;    // [kWideBlock][2][16]: where a tile cannot write to y
  int32_t* words;    // [kWideBlock][steps][RowWords::kPerStep]

  WideScratch(void* scratch, int64_t k) {
    w0 = static_cast<uint8_t*>(scratch);
    w1 = w0 + Expanded<kType>::StripBytes(k);
    results = reinterpret_cast<float*>(w1 + Expanded<kType>::StripBytes(k));
    words = reinterpret_cast<int32_t*>(results + kWideBlock * 2 * kStripRows);
  }
};

constexpr int kTallTile = 6, kLowTile = 4;  // rows

// Of so many rows, those that tall and low tiles can make up.
BAKESTONE_INLINE int64_t TiledRows(int64_t rows) { return rows < kLowTile ? 0 : rows / 2 * 2; }

// One tile: kR rows from m on.
template <class V, PanelType kType, int kR, class Strip>
void RunWideTile(const MatMulArgs& args, const Strip& first, const Strip& second,
                 const int32_t* words, int64_t m, const WideOut& out, FetchAhead& ahead) {
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {  // rows of y are pages apart
    __builtin_prefetch(out.y[0] + i * out.stride, 1);
    __builtin_prefetch(out.y[1] + i * out.stride, 1);
  }
  if constexpr (Strip::kSuper) {
    WideTileSuper<V, kType, kR>(args.x, first, second, words, m, out, ahead);
  } else {
    WideTile32<V, kType, kR>(args.x, first, second, words, m, out, ahead);
  }
}

// Rows [m0, m1), as many as tiles make up, by the pair of strips.
template <class V, PanelType kType, class Strip>
void RunWidePair(const MatMulArgs& args, const StripPair& pair, const Strip& first,
                 const Strip& second, int64_t m0, int64_t m1,
                 const WideScratch<Strip, kType>& scratch, FetchNext* fetch_next) {
  const int64_t row_words = Expanded<kType>::Steps(args.x.k) * RowWords<Strip, kType>::kPerStep;
  const bool direct = (args.epilogue == Epilogue::kStore || args.epilogue == Epilogue::kAdd) &&
                      (pair.second + 1) * kStripRows <= args.panel.n;
  const StripPair next(args, pair.next());
  const int64_t bytes = StripBytes(kType, args.x.k);
  FetchAhead ahead(next.first_panel->data + next.first * bytes,
                   next.second_panel->data + next.second * bytes, bytes,
                   (m1 - m0 + kTallTile - 1) / kTallTile * (args.x.k / 32), fetch_next);
  for (int64_t m = m0; m < m1;) {
    float* results = direct ? args.y + m * args.y_stride + pair.first * kStripRows
                            : scratch.results + (m - m0) * 2 * kStripRows;
    const WideOut out{
        {results, results + kStripRows},
        direct ? args.y_stride : 2 * kStripRows,
        direct && args.epilogue == Epilogue::kAdd,
        direct && args.bias != nullptr ? args.bias + pair.first * kStripRows : nullptr};
    const int32_t* words = scratch.words + (m - m0) * row_words;
    const int64_t left = m1 - m;
    if (left == kTallTile || left >= kTallTile + kLowTile) {
      RunWideTile<V, kType, kTallTile>(args, first, second, words, m, out, ahead);
      m += kTallTile;
    } else {
      RunWideTile<V, kType, kLowTile>(args, first, second, words, m, out, ahead);
      m += kLowTile;
    }
  }
  if (direct) return;
  for (int64_t m = m0; m < m1; ++m) {
    const float* results = scratch.results + (m - m0) * 2 * kStripRows;
    const auto r0 = V::Load(results), r1 = V::Load(results + kStripRows);
    Finish<V>(args, pair.first, m, r0, r1);
    if (args.epilogue != Epilogue::kSwiGlu) Finish<V>(args, pair.second, m, r1, r1);
  }
}

// All rows by the strips of the range, an even number unless they are gated; rows that make no
// whole tile one strip at a time, while it is in the caches.
template <class V, PanelType kType, class Strip>
void MatMulWide(const MatMulArgs& args, Range strips, void* scratch) {
  const WideScratch<Strip, kType> space(scratch, args.x.k);
  const int64_t rows = TiledRows(args.x.rows);
  const int64_t pairs = (strips.end - strips.begin) / (args.epilogue == Epilogue::kSwiGlu ? 1 : 2);
  FetchNext fetch_next(args.read_next, pairs * (rows / kTallTile + 1) * (args.x.k / 32));
  for (int64_t m0 = 0, m1; m0 < rows; m0 = m1) {
    m1 = m0 + kWideBlock < rows ? m0 + kWideBlock : rows;
    if (rows - m1 == 2) m1 -= kLowTile;  // two rows make no tile
    MakeRowWords<V, kType, Strip>(args.x, m0, m1, space.words);
    for (int64_t strip = strips.begin; strip < strips.end;) {
      const StripPair pair(args, strip);
      strip = pair.next();
      const Strip first(*pair.first_panel, pair.first, space.w0);
      const Strip second(*pair.second_panel, pair.second, space.w1);
      RunWidePair<V, kType, Strip>(args, pair, first, second, m0, m1, space, &fetch_next);
      if (m1 == rows) MatMulNarrow<V, kType>(args, {pair.first, strip}, {rows, args.x.rows});
    }
  }
}

// Fewer rows are not worth it: a tile one strip wide reads weights faster.
constexpr int64_t kWideFrom = 8;
// From how many rows on strips are expanded. What unpacks in a step or two gains 3 % at best, and
// what lies as it is multiplied nothing.
constexpr int64_t ExpandFrom(PanelType type) {
  switch (type) {
    case PanelType::kQ8_0:
      return INT64_MAX;
    case PanelType::kQ4_0:
    case PanelType::kQ4_1:
    case PanelType::kQ4_K:
      return 128;
    default:
      return 32;
  }
}

template <class V, PanelType kType>
void MatMul(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  constexpr bool kInteger =
      ActTypeOf(kType) == ActType::kInt8x32 || ActTypeOf(kType) == ActType::kInt8x128;
  bool wide = false;
  if constexpr (V::kWideTiles && kInteger) {
    Range pairs = strips;
    if (args.epilogue != Epilogue::kSwiGlu) pairs.end -= (strips.end - strips.begin) % 2;
    constexpr int64_t kExpandFrom = ExpandFrom(kType);
    if (args.x.rows >= kExpandFrom) {
      MatMulWide<V, kType, ExpandedStrip<V, kType>>(args, pairs, scratch);
      strips.begin = pairs.end;
      wide = true;
    } else if constexpr (!Expanded<kType>::kFolded) {  // of which there are none as they lie
      if (args.x.rows >= kWideFrom) {
        MatMulWide<V, kType, PanelStrip<V, kType>>(args, pairs, scratch);
        strips.begin = pairs.end;
        wide = true;
      }
    }
  }
  if constexpr (kType == PanelType::kBF16) {
    if (args.panel.flushed && args.epilogue != Epilogue::kSwiGlu) {
      return MatMulNarrow<V, kType, true>(args, strips, {0, args.x.rows});
    }
  }
  MatMulNarrow<V, kType>(args, strips, {0, args.x.rows}, !wide);
}

}  // namespace
}  // namespace bakestone
