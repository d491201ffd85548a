// Matrix products over one vector class V: V::kRows rows by one strip of 16 outputs at a time; the
// arithmetic of docs/numerics.md, which does not know about tiles. Many rows: matmul_wide.inl.h.
#pragma once

#include "kernels/cpu/dequantize.inl.h"
#include "kernels/cpu/math.inl.h"
#include "kernels/cpu/unpack.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

// Fetches what the caller reads next, a little in every step of a call.
class FetchNext {
 public:
  FetchNext() = default;  // nothing
  FetchNext(const ReadNext& next, int64_t steps) {
    if (next.lines == 0 || steps <= 0) return;
    part_ = next.parts;
    left_ = next.lines;
    per_step_ = (next.lines + steps - 1) / steps;
    Begin();
  }
  BAKESTONE_INLINE void Step() {
    for (int64_t i = 0; i < per_step_ && left_ > 0; ++i) {
      FetchLine(line_, true);
      line_ += 64;
      --left_;
      if (line_ == end_ && left_ > 0) {
        ++part_;
        Begin();
      }
    }
  }

 private:
  BAKESTONE_INLINE void Begin() {
    line_ = part_->first;
    end_ = line_ + 64 * part_->count;
  }
  const Lines* part_ = nullptr;
  int64_t left_ = 0, per_step_ = 0;
  const uint8_t *line_ = nullptr, *end_ = nullptr;
};

// A tile: rows [m0, m0 + kR) of x by strip `strip`.
template <class V, PanelType kType, int kR>
BAKESTONE_INLINE void TileBlocks32(const Activations& x, const Panel& panel, int64_t strip,
                                   int64_t m0, typename V::F* r) {
  using T = Traits<kType>;
  constexpr int kBias = DotBias<V, kType>();
  const StripPlanes planes = PlanesOf(panel, strip);
  const int64_t blocks = x.k / 32;
  const int8_t* q = x.q + m0 * x.stride;
  const float* scale = x.scale + m0 * blocks;
  const float* scaled_sum = x.scaled_sum + m0 * blocks;
  const int16_t* sum = x.sum + m0 * blocks;
  const Ahead<kType> ahead(planes.low, StripBytes(kType, x.k));
  typename V::F a[kR], b[kR];
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) a[i] = b[i] = V::Zero();
  for (int64_t block = 0; block < blocks; ++block) {
    ahead.Fetch(block);
    typename V::B w[8];
    Unpack32<V, kType>(planes.low + block * T::kLow, planes.high + block * T::kHigh, w);
    const uint8_t* side = planes.side + block * PanelShapeOf(kType).side;
    const typename V::F d = BlockScale<V, kType>(side);
    typename V::F m = V::Zero();
    if constexpr (T::kMin) m = V::LoadHalf(side + 32);
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) {
      const int64_t at = i * blocks + block;
      typename V::I c = V::SetI(kBias == 0 ? 0 : -kBias * sum[at]);
      c = V::template Dot<T::kBits, 8>(c, w, q + i * x.stride + 32 * block);
      a[i] = V::Fma(V::Mul(V::ToFloat(c), d), V::Set(scale[at]), a[i]);
      if constexpr (T::kMin) b[i] = V::Fma(m, V::Set(scaled_sum[at]), b[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) r[i] = T::kMin ? V::Add(a[i], b[i]) : a[i];
}

// What 32 k of a super-block bring to the integer sums of one row, with their scales.
template <class V, PanelType kType>
struct Sub32 {
  typename V::B w[8];
  typename V::I scale[2], pairs;  // pairs: the minima, or the scales times the bias

  BAKESTONE_INLINE void Read(const StripPlanes& planes, const uint8_t* side, int64_t block,
                             int sub) {
    using T = Traits<kType>;
    const int64_t share = block * 8 + sub;
    Unpack32<V, kType>(planes.low + share * T::kLow, planes.high + share * T::kHigh, w);
    const int first = T::kBy16 ? 2 * sub : sub, second = T::kBy16 ? 2 * sub + 1 : sub;
    scale[0] = GroupScale<V, kType>(side, first);
    scale[1] = T::kBy16 ? GroupScale<V, kType>(side, second) : scale[0];
    if constexpr (T::kMin) {
      const auto m = GroupMin<V, kType>(side, first);
      pairs = Pairs<V>(m, T::kBy16 ? GroupMin<V, kType>(side, second) : m);
    } else {
      const auto bias = V::SetI(-DotBias<V, kType>());
      pairs = Pairs<V>(V::MulI(scale[0], bias), V::MulI(scale[1], bias));
    }
  }

  BAKESTONE_INLINE void Add(const int8_t* a, const int16_t* sums, typename V::I* i1,
                            typename V::I* i2) const {
    using T = Traits<kType>;
    const typename V::I zero = V::SetI(0);
    if constexpr (T::kBy16) {
      const auto c0 = V::template Dot<T::kBits, 4>(zero, w, a);
      const auto c1 = V::template Dot<T::kBits, 4>(zero, w + 4, a + 16);
      *i1 = V::AddI(*i1, V::AddI(V::MulI(c0, scale[0]), V::MulI(c1, scale[1])));
    } else {
      *i1 = V::AddI(*i1, V::MulI(V::template Dot<T::kBits, 8>(zero, w, a), scale[0]));
    }
    if constexpr (T::kMin) {
      *i2 = V::DotPairs(*i2, pairs, sums);
    } else if constexpr (DotBias<V, kType>() != 0) {
      *i1 = V::DotPairs(*i1, pairs, sums);
    }
  }
};

template <class V, PanelType kType, int kR>
BAKESTONE_INLINE void TileSuperBlocks(const Activations& x, const Panel& panel, int64_t strip,
                                      int64_t m0, typename V::F* r) {
  constexpr bool kMin = Traits<kType>::kMin;
  const StripPlanes planes = PlanesOf(panel, strip);
  const int64_t halves = x.k / 128, groups = x.k / 16;
  const int8_t* q = x.q + m0 * x.stride;
  const float* scale = x.scale + m0 * halves;
  const int16_t* sum = x.sum + m0 * groups;
  const Ahead<kType> ahead(planes.low, StripBytes(kType, x.k));
  typename V::F a[kR], b[kR];
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) a[i] = b[i] = V::Zero();
  for (int64_t half = 0; half < halves; ++half) {
    const uint8_t* side = planes.side + half / 2 * PanelShapeOf(kType).side;
    const typename V::F d = V::LoadHalf(side);
    typename V::I i1[kR], i2[kR];
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) i1[i] = i2[i] = V::SetI(0);
    const int first = half % 2 == 0 ? 0 : 4;
    for (int sub = first; sub < first + 4; ++sub) {
      ahead.Fetch(half / 2 * 8 + sub);
      Sub32<V, kType> weights;
      weights.Read(planes, side, half / 2, sub);
      const int64_t k = half / 2 * 256 + sub * 32;
#pragma GCC unroll 16
      for (int i = 0; i < kR; ++i) {
        weights.Add(q + i * x.stride + k, sum + i * groups + k / 16, &i1[i], &i2[i]);
      }
    }
    typename V::F dmin = V::Zero();
    if constexpr (kMin) dmin = V::LoadHalf(side + 32);
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) {
      const auto da = V::Set(scale[i * halves + half]);
      a[i] = V::Fma(V::Mul(V::ToFloat(i1[i]), d), da, a[i]);
      if constexpr (kMin) b[i] = V::Fma(V::Mul(V::ToFloat(i2[i]), dmin), da, b[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) r[i] = kMin ? V::Sub(a[i], b[i]) : a[i];
}

// Weights of plain panels as pairs of vectors; Fma takes them into two sums, with inputs that a
// kernel's caller rounded.
template <class V>
struct ReadF32 {
  BAKESTONE_INLINE static void Pair(const uint8_t* p, typename V::F* even, typename V::F* odd) {
    *even = V::Load(reinterpret_cast<const float*>(p));
    *odd = V::Load(reinterpret_cast<const float*>(p) + 16);
  }
  BAKESTONE_INLINE static void Fma(const uint8_t* p, const float* x, typename V::F* even,
                                   typename V::F* odd) {
    typename V::F w0, w1;
    Pair(p, &w0, &w1);
    *even = V::Fma(w0, V::Set(x[0]), *even);
    *odd = V::Fma(w1, V::Set(x[1]), *odd);
  }
  static constexpr int kBytes = 128;
};
template <class V>
struct ReadF16 {
  BAKESTONE_INLINE static void Pair(const uint8_t* p, typename V::F* even, typename V::F* odd) {
    *even = V::LoadHalf(p);
    *odd = V::LoadHalf(p + 32);
  }
  BAKESTONE_INLINE static void Fma(const uint8_t* p, const float* x, typename V::F* even,
                                   typename V::F* odd) {
    *even = V::Fma(V::LoadHalf(p), V::Set(x[0]), *even);
    *odd = V::Fma(V::LoadHalf(p + 32), V::Set(x[1]), *odd);
  }
  static constexpr int kBytes = 64;
};
template <class V, bool kFlushed>
struct ReadBF16 {  // below 2^-50 to zero
  BAKESTONE_INLINE static void Pair(const uint8_t* p, typename V::F* even, typename V::F* odd) {
    *even = V::LoadEven(p);
    *odd = V::LoadOdd(p);
    if constexpr (kFlushed) return;
    *even = V::KeepFrom(*even, 0x1p-50f);
    *odd = V::KeepFrom(*odd, 0x1p-50f);
  }
  BAKESTONE_INLINE static void Fma(const uint8_t* p, const float* x, typename V::F* even,
                                   typename V::F* odd) {
    if constexpr (kFlushed) {
      *even = V::Fma(V::LoadEven(p), V::Set(x[0]), *even);
      *odd = V::Fma(V::LoadOdd(p), V::Set(x[1]), *odd);
      return;
    }
    *even = V::FmaFrom(V::LoadEven(p), V::Set(x[0]), *even, 0x1p-50f);
    *odd = V::FmaFrom(V::LoadOdd(p), V::Set(x[1]), *odd, 0x1p-50f);
  }
  static constexpr int kBytes = 64;
};

// How far ahead of their use the weights of plain panels are fetched where few rows share them: the
// next page's too, which the hardware does not foresee.
// `pair` counts them from the beginning of a line.
template <class Reader>
BAKESTONE_INLINE void FetchPair(const uint8_t* w, int64_t pair) {
  constexpr int64_t kAhead = 4096;
  constexpr int kInLine = Reader::kBytes < 64 ? 64 / Reader::kBytes : 1;
  if (pair % kInLine != 0) return;
  for (int at = 0; at < Reader::kBytes; at += 64) FetchLine(w + kAhead + at, false);
}

// Pair order: per 32 of k an even and an odd chain from 0, then A += even + odd.
template <class V, class Reader, int kR>
BAKESTONE_INLINE void TileFloat(const Activations& x, const uint8_t* w, int64_t m0,
                                typename V::F* r) {
  const float* f = x.f + m0 * x.stride;
  const int64_t k = x.k + x.k % 2;
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) r[i] = V::Zero();
  int64_t k0 = 0;
  for (; k0 < k; k0 += 32) {
    const int64_t k1 = k0 + 32 < k ? k0 + 32 : k;
    typename V::F even[kR], odd[kR];
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) even[i] = odd[i] = V::Zero();
    for (int64_t j = k0; j < k1; j += 2) {
      typename V::F w0, w1;
      Reader::Pair(w, &w0, &w1);
      if constexpr (kR <= 2) FetchPair<Reader>(w, j / 2);
      w += Reader::kBytes;
#pragma GCC unroll 16
      for (int i = 0; i < kR; ++i) {
        even[i] = V::Fma(w0, V::Set(f[i * x.stride + j]), even[i]);
        odd[i] = V::Fma(w1, V::Set(f[i * x.stride + j + 1]), odd[i]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kR; ++i) r[i] = V::Add(r[i], V::Add(even[i], odd[i]));
  }
}

// The same for one row and kS strips, where k is short.
template <class V, class Reader, int kS>
BAKESTONE_INLINE void StripsFloat(const float* f, int64_t x_k, const uint8_t* w,
                                  int64_t strip_bytes, typename V::F* r) {
  const int64_t k = x_k + x_k % 2;
#pragma GCC unroll 16
  for (int s = 0; s < kS; ++s) r[s] = V::Zero();
  for (int64_t k0 = 0; k0 < k; k0 += 32) {
    const int64_t k1 = k0 + 32 < k ? k0 + 32 : k;
    typename V::F even[kS], odd[kS];
#pragma GCC unroll 16
    for (int s = 0; s < kS; ++s) even[s] = odd[s] = V::Zero();
    for (int64_t j = k0; j < k1; j += 2) {
#pragma GCC unroll 16
      for (int s = 0; s < kS; ++s) {
        const uint8_t* pair = w + s * strip_bytes + j / 2 * Reader::kBytes;
        Reader::Fma(pair, f + j, &even[s], &odd[s]);
      }
    }
#pragma GCC unroll 16
    for (int s = 0; s < kS; ++s) r[s] = V::Add(r[s], V::Add(even[s], odd[s]));
  }
}

// ---- From tiles to a kernel ----

template <class V, PanelType kType, bool kFlushed = false>
struct ServeTile {
  // Where the strip's weights are read; unused by the packed types.
  BAKESTONE_INLINE static const uint8_t* Prepare(const Panel& panel, int64_t strip, float*) {
    return PlanesOf(panel, strip).low;
  }
  template <int kR>
  BAKESTONE_INLINE static void Run(const Activations& x, const Panel& panel, int64_t strip,
                                   const uint8_t* w, int64_t m0, typename V::F* r) {
    (void)w;
    if constexpr (kType == PanelType::kF32) {
      TileFloat<V, ReadF32<V>, kR>(x, w, m0, r);
    } else if constexpr (kType == PanelType::kF16) {
      TileFloat<V, ReadF16<V>, kR>(x, w, m0, r);
    } else if constexpr (kType == PanelType::kBF16) {
      TileFloat<V, ReadBF16<V, kFlushed>, kR>(x, w, m0, r);
    } else if constexpr (PanelShapeOf(kType).block == 32) {
      TileBlocks32<V, kType, kR>(x, panel, strip, m0, r);
    } else {
      TileSuperBlocks<V, kType, kR>(x, panel, strip, m0, r);
    }
  }
};

// kExact: the strip is decoded to f32 once, for all rows.
template <class V>
struct ExactTile {
  template <PanelType kType>
  BAKESTONE_INLINE static void Decode(const Panel& panel, int64_t strip, float* out) {
    DequantizeStrip<V, kType>(panel, strip, 0, panel.k, out);
    if (panel.k % 2 != 0) V::Store(out + panel.k * kStripRows, V::Zero());
  }
  template <int kR>
  BAKESTONE_INLINE static void Run(const Activations& x, const Panel&, int64_t, const uint8_t* w,
                                   int64_t m0, typename V::F* r) {
    TileFloat<V, ReadF32<V>, kR>(x, w, m0, r);
  }
};

// One output vector of one row.
template <class V>
BAKESTONE_INLINE void Finish(const MatMulArgs& args, int64_t strip, int64_t row, typename V::F r,
                             const typename V::F& up) {
  const int64_t n = args.panel.n - strip * kStripRows;
  float* y = args.y + row * args.y_stride + strip * kStripRows;
  if (args.bias != nullptr) r = V::Add(r, V::LoadN(args.bias + strip * kStripRows, n));
  switch (args.epilogue) {
    case Epilogue::kStore:
      break;
    case Epilogue::kAdd:
      r = V::Add(V::LoadN(y, n), r);
      break;
    case Epilogue::kAddScaled:
      r = V::Fma(V::Set(args.scale), r, V::LoadN(y, n));
      break;
    case Epilogue::kSwiGlu:
      r = SwiGlu<V>(r, up);
      break;
  }
  V::StoreN(y, r, n);
}

template <class V>
[[gnu::noinline]] void FinishTile(const MatMulArgs& args, int64_t strip, int64_t m0, int rows,
                                  const typename V::F* r, const typename V::F* up) {
  for (int i = 0; i < rows; ++i) Finish<V>(args, strip, m0 + i, r[i], up[i]);
}

struct StripWeights {
  const uint8_t *panel, *up;
};

// Not inlined: the fused pair calls it twice.
template <class V, class Tile, int kR>
[[gnu::noinline]] void ComputeTile(const Activations& x, const Panel& panel, int64_t strip,
                                   const uint8_t* w, int64_t m0, typename V::F* r) {
  typename V::F sums[kR];
  Tile::template Run<kR>(x, panel, strip, w, m0, sums);
#pragma GCC unroll 16
  for (int i = 0; i < kR; ++i) r[i] = sums[i];
}

template <class V, class Tile, int kR>
BAKESTONE_INLINE void RunTile(const MatMulArgs& args, int64_t strip, StripWeights w, int64_t m0,
                              FetchNext& next) {
  next.Step();
  typename V::F r[V::kRows], up[V::kRows];
  ComputeTile<V, Tile, kR>(args.x, args.panel, strip, w.panel, m0, r);
  if (args.epilogue == Epilogue::kSwiGlu) {
    ComputeTile<V, Tile, kR>(args.x, args.up, strip, w.up, m0, up);
  }
  FinishTile<V>(args, strip, m0, kR, r, up);
}

// Rows [m0, m1) by one strip, in tiles of 8 (or 4), 4, 2 and 1.
template <class V, class Tile>
void RunRows(const MatMulArgs& args, int64_t strip, StripWeights w, int64_t m0, int64_t m1,
             FetchNext& next) {
  for (; m0 + V::kRows <= m1; m0 += V::kRows) RunTile<V, Tile, V::kRows>(args, strip, w, m0, next);
  if constexpr (V::kRows > 4) {
    for (; m0 + 4 <= m1; m0 += 4) RunTile<V, Tile, 4>(args, strip, w, m0, next);
  }
  for (; m0 + 2 <= m1; m0 += 2) RunTile<V, Tile, 2>(args, strip, w, m0, next);
  for (; m0 < m1; ++m0) RunTile<V, Tile, 1>(args, strip, w, m0, next);
}

// Rows that stay in the L2 cache while all strips of the range pass.
constexpr int64_t kRowBlock = 64;

// One row by strips of few k, kS of them side by side. Returns the first strip that is left.
template <class V, class Reader, int kS>
int64_t RunShortStrips(const MatMulArgs& args, Range strips, int64_t row) {
  const int64_t bytes = StripBytes(args.panel.type, args.panel.k);
  int64_t strip = strips.begin;
  for (; strip + kS <= strips.end; strip += kS) {
    typename V::F r[kS];
    StripsFloat<V, Reader, kS>(args.x.f + row * args.x.stride, args.x.k,
                               args.panel.data + strip * bytes, bytes, r);
    for (int s = 0; s < kS; ++s) Finish<V>(args, strip + s, row, r[s], r[s]);
  }
  return strip;
}

// Rows [begin, end) by the strips of the range, which are unpacked anew for each tile. fetch: what
// is read next, too.
template <class V, PanelType kType, bool kFlushed = false>
void MatMulNarrow(const MatMulArgs& args, Range strips, Range rows, bool fetch = false) {
  using Tile = ServeTile<V, kType, kFlushed>;
  if constexpr (kType == PanelType::kBF16) {  // the second product of an adapter
    constexpr int64_t kShort = 128;
    if (rows.end - rows.begin == 1 && args.x.k < kShort && args.epilogue != Epilogue::kSwiGlu) {
      using Reader = ReadBF16<V, kFlushed>;
      strips.begin = RunShortStrips<V, Reader, 4>(args, strips, rows.begin);
      strips.begin = RunShortStrips<V, Reader, 2>(args, strips, rows.begin);
    }
  }
  FetchNext next;
  if (fetch) {
    const int64_t tiles = (rows.end - rows.begin + V::kRows - 1) / V::kRows;
    next = FetchNext(args.read_next, tiles * (strips.end - strips.begin));
  }
  for (int64_t m0 = rows.begin; m0 < rows.end; m0 += kRowBlock) {
    const int64_t m1 = m0 + kRowBlock < rows.end ? m0 + kRowBlock : rows.end;
    for (int64_t strip = strips.begin; strip < strips.end; ++strip) {
      StripWeights w{Tile::Prepare(args.panel, strip, nullptr), nullptr};
      if (args.epilogue == Epilogue::kSwiGlu) w.up = Tile::Prepare(args.up, strip, nullptr);
      RunRows<V, Tile>(args, strip, w, m0, m1, next);
    }
  }
}

template <class V>
void RunExact(const MatMulArgs& args, int64_t strip, const float* panel, const float* up) {
  const StripWeights w{reinterpret_cast<const uint8_t*>(panel),
                       reinterpret_cast<const uint8_t*>(up)};
  FetchNext nothing;
  RunRows<V, ExactTile<V>>(args, strip, w, 0, args.x.rows, nothing);
}

template <class V, PanelType kType>
void MatMulExact(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  float* panel = static_cast<float*>(scratch);
  float* up = panel + (args.x.k + 256) * kStripRows;
  for (int64_t strip = strips.begin; strip < strips.end; ++strip) {
    ExactTile<V>::template Decode<kType>(args.panel, strip, panel);
    if (args.epilogue == Epilogue::kSwiGlu) {
      ExactTile<V>::template Decode<kType>(args.up, strip, up);
    }
    RunExact<V>(args, strip, panel, up);
  }
}

}  // namespace
}  // namespace bakestone
