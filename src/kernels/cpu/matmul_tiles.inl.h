// Matrix products on tile registers (AMX) over AVX-512: 16 rows by a strip of 16 outputs at a time,
// for integer and BF16 panels and rows enough. Tiles is AmxTiles (tiles_amx.h), or its emulation in
// tests. The same arithmetic as matmul.inl.h, the same bits: integer sums of 32 k (super-blocks:
// 128 k with their integer scales) are exact whatever makes them, and the float steps follow in the
// same order.
//
// A tile multiplies 16 x 16 x 64 in 16 cycles; its sums then go through memory to be scaled, which
// is what takes the time. So super-blocks multiply their integer scales into the weights
// beforehand: a product of 8 x 6 bits, split into two planes of int8, 64 h + l, is summed over 128
// k before it meets a float. Rows share what was expanded; the sums of the next step are made while
// this one is scaled.
#pragma once

#include "kernels/cpu/matmul.inl.h"
#include "kernels/cpu/vec_avx512.h"

namespace bakestone {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBlock = 256;  // rows that share an expanded strip

// A strip of a panel as the tiles read it, and what they need of each row, per step: 32 k, of
//   super-blocks 128.
//   weights  planes of int8 in the order of B tiles (32-blocks [8][16][4]; super-blocks for each 64
//            k, each plane, [16][16][4]); d [16] f32; of types with minima m [16] f32, or the pairs
//            of int16 and dmin
//   rows     words [kRowWords][16 rows]: the scale; of types with minima the scaled sum, or pairs
//            of sums
template <PanelType kType>
struct TileForm {
  using T = Traits<kType>;
  static constexpr bool kSuper = PanelShapeOf(kType).block == 256;
  // Q2_K: scale * quant is at most 45. Q3_K: -scale * (quant - 4) is -128 to 124; d is negated.
  static constexpr bool kOnePlane = kType == PanelType::kQ2_K || kType == PanelType::kQ3_K;
  static constexpr int kPlanes = kSuper && !kOnePlane ? 2 : 1;
  static constexpr int64_t kStep = kSuper ? 128 : 32;
  static constexpr int kPairs = !kSuper || !T::kMin ? 0 : T::kBy16 ? 4 : 2;
  static constexpr int64_t kQuantBytes = kStep * kStripRows * kPlanes;
  static constexpr int64_t kStepBytes = kQuantBytes + 64 + (T::kMin ? 64 * (kPairs + 1) : 0);
  static constexpr int kRowWords = !T::kMin ? 1 : kSuper ? 1 + kPairs : 2;
  static constexpr int kRowBytes = kSuper ? 64 : 32;  // of a tile of activations

  BAKESTONE_INLINE static constexpr int64_t Steps(int64_t k) { return k / kStep; }
};

// ---- Strips ----

// 64 weights, bytes as unpacked, times the lane's scale: bytes of the two planes, or of the one.
template <PanelType kType>
BAKESTONE_INLINE void FoldBytes(__m512i quants, __m512i scale, uint8_t* high, uint8_t* low) {
  const __m512i bytes = _mm512_set1_epi16(255), bias = _mm512_set1_epi16(Traits<kType>::kBias);
  const __m512i scales = Pairs<V512>(scale, scale);
  __m512i even = _mm512_sub_epi16(_mm512_and_si512(quants, bytes), bias);
  __m512i odd = _mm512_sub_epi16(_mm512_srli_epi16(quants, 8), bias);
  even = _mm512_mullo_epi16(even, scales);
  odd = _mm512_mullo_epi16(odd, scales);
  const auto put = [&](uint8_t* out, __m512i e, __m512i o) __attribute__((always_inline)) {
    _mm512_store_si512(out, _mm512_or_si512(_mm512_and_si512(e, bytes), _mm512_slli_epi16(o, 8)));
  };
  if constexpr (TileForm<kType>::kOnePlane) {
    const __m512i zero = _mm512_setzero_si512();
    if constexpr (kType == PanelType::kQ3_K) {
      even = _mm512_sub_epi16(zero, even);
      odd = _mm512_sub_epi16(zero, odd);
    }
    put(high, even, odd);
  } else {  // 64 h + l, l from -32 to 31
    const __m512i half = _mm512_set1_epi16(32);
    const __m512i even_high = _mm512_srai_epi16(_mm512_add_epi16(even, half), 6);
    const __m512i odd_high = _mm512_srai_epi16(_mm512_add_epi16(odd, half), 6);
    put(high, even_high, odd_high);
    put(low, _mm512_sub_epi16(even, _mm512_slli_epi16(even_high, 6)),
        _mm512_sub_epi16(odd, _mm512_slli_epi16(odd_high, 6)));
  }
}

BAKESTONE_INLINE void PutFloats(uint8_t* out, __m512 x) { _mm512_store_ps(out, x); }

template <PanelType kType>
BAKESTONE_INLINE void FoldStep(const StripPlanes& planes, int64_t step, uint8_t* out) {
  using T = Traits<kType>;
  using Form = TileForm<kType>;
  const int64_t block = step / 2;
  const int half = static_cast<int>(step % 2);
  const uint8_t* side = planes.side + block * PanelShapeOf(kType).side;
  for (int i = 0; i < 4; ++i) {
    const int sub = 4 * half + i;
    const int64_t share = block * 8 + sub;
    __m512i w[8];
    Unpack32<V512, kType>(planes.low + share * T::kLow, planes.high + share * T::kHigh, w);
    const __m512i first = GroupScale<V512, kType>(side, T::kBy16 ? 2 * sub : sub);
    const __m512i second = T::kBy16 ? GroupScale<V512, kType>(side, 2 * sub + 1) : first;
    uint8_t* high = out + i / 2 * Form::kPlanes * 1024 + i % 2 * 512;
    for (int g = 0; g < 8; ++g) {
      FoldBytes<kType>(w[g], g < 4 ? first : second, high + 64 * g, high + 1024 + 64 * g);
    }
  }
  out += Form::kQuantBytes;
  const __m512 d = V512::LoadHalf(side);
  PutFloats(out, kType == PanelType::kQ3_K ? V512::Mul(d, V512::Set(-1.0f)) : d);
  if constexpr (T::kMin) {
    for (int i = 0; i < Form::kPairs; ++i) {
      const int group = 2 * (Form::kPairs * half + i);
      const __m512i pairs =
          Pairs<V512>(GroupMin<V512, kType>(side, group), GroupMin<V512, kType>(side, group + 1));
      _mm512_store_si512(out + 64 * (1 + i), pairs);
    }
    PutFloats(out + 64 * (1 + Form::kPairs), V512::LoadHalf(side + 32));
  }
}

template <PanelType kType>
[[gnu::noinline]] void MakeTileStrip(const Panel& panel, int64_t strip, uint8_t* out) {
  using T = Traits<kType>;
  using Form = TileForm<kType>;
  const StripPlanes planes = PlanesOf(panel, strip);
  const int64_t steps = Form::Steps(panel.k);
  for (int64_t step = 0; step < steps; ++step, out += Form::kStepBytes) {
    if constexpr (Form::kSuper) {
      FoldStep<kType>(planes, step, out);
    } else {
      __m512i w[8];
      Unpack32<V512, kType>(planes.low + step * T::kLow, planes.high + step * T::kHigh, w);
      const __m512i bias = V512::SetB(T::kBias);
      for (int g = 0; g < 8; ++g) _mm512_store_si512(out + 64 * g, _mm512_sub_epi8(w[g], bias));
      const uint8_t* side = planes.side + step * PanelShapeOf(kType).side;
      PutFloats(out + 512, BlockScale<V512, kType>(side));
      if constexpr (T::kMin) PutFloats(out + 576, V512::LoadHalf(side + 32));
    }
  }
}

// ---- Rows ----

// Rows [m0, m1), at most kTileBlock: words [tile][step][kRowWords][16]; those beyond m1 are zero.
template <PanelType kType>
[[gnu::noinline]] void MakeTileWords(const Activations& x, int64_t m0, int64_t m1, int32_t* words) {
  using Form = TileForm<kType>;
  constexpr int kEach = Traits<kType>::kBy16 ? 1 : 2;  // sums of 16 k that make a number of a pair
  const int64_t steps = Form::Steps(x.k);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = V512::MulI(lanes, V512::SetI(static_cast<int32_t>(steps))),
                sums = V512::Shl<3>(rows);
  for (int64_t m = m0; m < m1; m += kTileRows) {
    const __mmask16 there = V512::Mask(m1 - m);
    const auto put = [&](__m512i x16) __attribute__((always_inline)) {
      _mm512_store_si512(words, x16);
      words += 16;
    };
    const auto floats = [&](const float* at) __attribute__((always_inline)) {
      return _mm512_mask_i32gather_epi32(V512::SetI(0), there, rows, at, 4);
    };
    const auto pairs = [&](const int16_t* at) __attribute__((always_inline)) {
      return _mm512_mask_i32gather_epi32(V512::SetI(0), there, sums, at, 2);
    };
    for (int64_t at = m * steps; at < (m + 1) * steps; ++at) {
      put(floats(x.scale + at));
      if constexpr (Traits<kType>::kMin && !Form::kSuper) put(floats(x.scaled_sum + at));
      for (int i = 0; i < Form::kPairs; ++i) {
        const int16_t* sum = x.sum + at * 8 + i * 2 * kEach;
        if constexpr (kEach == 1) {
          put(pairs(sum));
        } else {
          const __m512i ones = _mm512_set1_epi16(1);
          put(Pairs<V512>(_mm512_madd_epi16(pairs(sum), ones),
                          _mm512_madd_epi16(pairs(sum + 2), ones)));
        }
      }
    }
  }
}

// ---- Tiles ----

// Sums of one step into tiles kFirst and on, and from there to memory: [plane][16][16].
template <PanelType kType, int kFirst, class Tiles>
BAKESTONE_INLINE void TileSums(Tiles& tiles, const int8_t* q, int64_t stride, const uint8_t* w,
                               int32_t* sums) {
  constexpr int kPlanes = TileForm<kType>::kPlanes;
  tiles.template Load<4>(q, stride);
  tiles.template Load<6>(w, 64);
  tiles.template Zero<kFirst>();
  tiles.template DotInt8<kFirst, 4, 6>();
  if constexpr (TileForm<kType>::kSuper) {
    tiles.template Load<5>(q + 64, stride);
    tiles.template Load<7>(w + 1024 * kPlanes, 64);
    tiles.template DotInt8<kFirst, 5, 7>();
  }
  tiles.template Store<kFirst>(sums, 64);
  if constexpr (kPlanes == 2) {
    tiles.template Load<6>(w + 1024, 64);
    tiles.template Zero<kFirst + 1>();
    tiles.template DotInt8<kFirst + 1, 4, 6>();
    tiles.template Load<7>(w + 3072, 64);
    tiles.template DotInt8<kFirst + 1, 5, 7>();
    tiles.template Store<kFirst + 1>(sums + 256, 64);
  }
}

// a[row] = fma(float(sum) * d, scale[row], a[row])
template <PanelType kType>
BAKESTONE_INLINE void ScaleTile(const int32_t* sums, __m512 d, const float* scale,
                                __m512 (&a)[kTileRows]) {
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
    __m512i c = _mm512_load_si512(sums + 16 * i);
    if constexpr (TileForm<kType>::kPlanes == 2) {
      c = _mm512_add_epi32(_mm512_slli_epi32(c, 6), _mm512_load_si512(sums + 256 + 16 * i));
    }
    a[i] = V512::Fma(V512::Mul(V512::ToFloat(c), d), V512::Set(scale[i]), a[i]);
  }
}

// What the minima bring to 16 rows, all steps -> out [16][16]; subtracted for super-blocks. For all
// rows of a block before their tiles: vectors and tiles slow each other down.
template <PanelType kType>
[[gnu::noinline]] void SumMinima(int64_t steps, const uint8_t* w, const int32_t* words,
                                 float* out) {
  using Form = TileForm<kType>;
  __m512 b[kTileRows];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) b[i] = V512::Zero();
  w += Form::kQuantBytes + 64;
  for (int64_t step = 0; step < steps;
       ++step, w += Form::kStepBytes, words += 16 * Form::kRowWords) {
    const auto* scale = reinterpret_cast<const float*>(words + (Form::kSuper ? 0 : 16));
    const __m512 m = V512::Load(reinterpret_cast<const float*>(w + 64 * Form::kPairs));
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      __m512 factor = m;
      if constexpr (Form::kSuper) {
        __m512i sum = V512::SetI(0);
#pragma GCC unroll 4
        for (int pair = 0; pair < Form::kPairs; ++pair) {
          const auto* sums = reinterpret_cast<const int16_t*>(words + 16 * (1 + pair) + i);
          sum = V512::DotPairs(sum, _mm512_load_si512(w + 64 * pair), sums);
        }
        factor = V512::Mul(V512::ToFloat(sum), m);
      }
      b[i] = V512::Fma(factor, V512::Set(scale[i]), b[i]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) V512::Store(out + 16 * i, b[i]);
}

// 16 rows by one strip -> results [16][16]. minima: SumMinima's, of types that have them.
template <PanelType kType, class Tiles>
[[gnu::noinline]] void RunOneTile(Tiles& tiles, int64_t k, const int8_t* q, int64_t stride,
                                  const uint8_t* w, const int32_t* words, const float* minima,
                                  float* results) {
  using Form = TileForm<kType>;
  constexpr int kSums = 256 * Form::kPlanes;
  alignas(64) int32_t sums[2][kSums];
  const int64_t steps = Form::Steps(k);
  __m512 a[kTileRows];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) a[i] = V512::Zero();
  TileSums<kType, 0>(tiles, q, stride, w, sums[0]);
  for (int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      const int8_t* next_q = q + (step + 1) * Form::kStep;
      const uint8_t* next_w = w + (step + 1) * Form::kStepBytes;
      if (step % 2 == 0) {
        TileSums<kType, 2>(tiles, next_q, stride, next_w, sums[1]);
      } else {
        TileSums<kType, 0>(tiles, next_q, stride, next_w, sums[0]);
      }
    }
    const auto* d = reinterpret_cast<const float*>(w + step * Form::kStepBytes + Form::kQuantBytes);
    const auto* scale = reinterpret_cast<const float*>(words + step * 16 * Form::kRowWords);
    ScaleTile<kType>(sums[step % 2], V512::Load(d), scale, a);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
    if constexpr (Traits<kType>::kMin) {
      const __m512 b = V512::Load(minima + 16 * i);
      a[i] = Form::kSuper ? V512::Sub(a[i], b) : V512::Add(a[i], b);
    }
    V512::Store(results + 16 * i, a[i]);
  }
}

// ---- BF16 panels ----

// Sums of bf16 pairs stay in the tile over all of k: each 32 k bring even + odd, which is the order
// of docs/numerics.md. k is padded to a multiple of 32 with zeros.
constexpr int64_t kFloatTileBlock = 64;  // rows that share a strip

BAKESTONE_INLINE constexpr int64_t FloatTileSteps(int64_t k) { return (k + 31) / 32; }

// Whether tiles are loaded from the strips as they lie in the panel: those of whole steps, or of a
// part of one, for which the tiles are made lower.
BAKESTONE_INLINE bool ReadsFloatPanel(const MatMulArgs& args) {
  const int64_t k = args.panel.k;
  return args.panel.flushed && args.epilogue != Epilogue::kSwiGlu &&
         (k % 32 == 0 || (k < 32 && k % 2 == 0));
}

// Bytes of a row of a tile of activations.
BAKESTONE_INLINE int FloatRowBytes(const MatMulArgs& args) {
  return ReadsFloatPanel(args) && args.panel.k < 32 ? static_cast<int>(2 * args.panel.k) : 64;
}

// Rows of a tile: all, where they do not fill one.
BAKESTONE_INLINE int64_t FloatTileRows(const Activations& x) {
  return x.rows < kTileRows ? x.rows : kTileRows;
}

// A strip of the panel, [step][16][16][2], weights below 2^-50 as zeros.
[[gnu::noinline]] inline void MakeFloatTileStrip(const Panel& panel, int64_t strip, uint8_t* out) {
  const uint8_t* w = PlanesOf(panel, strip).low;
  const int64_t pairs = (panel.k + 1) / 2, padded = 16 * FloatTileSteps(panel.k);
  const __m512i magnitude = _mm512_set1_epi16(0x7FFF), least = _mm512_set1_epi16((127 - 50) << 7);
  for (int64_t i = 0; i < pairs; ++i, w += 64, out += 64) {
    const __m512i x = _mm512_loadu_si512(w);
    const __mmask32 kept = _mm512_cmpge_epi16_mask(_mm512_and_si512(x, magnitude), least);
    _mm512_store_si512(out, _mm512_maskz_mov_epi16(kept, x));
  }
  for (int64_t i = pairs; i < padded; ++i, out += 64) {
    _mm512_store_si512(out, _mm512_setzero_si512());
  }
}

// Rows [m0, m1) in bf16 (they are held as f32 that are exact), [tile][step][FloatTileRows][32],
// zeros beyond.
[[gnu::noinline]] inline void MakeFloatTileRows(const Activations& x, int64_t m0, int64_t m1,
                                                uint16_t* out) {
  const int64_t tile_rows = FloatTileRows(x);
  alignas(64) uint16_t upper[32];  // of each float
  for (int i = 0; i < 32; ++i) upper[i] = static_cast<uint16_t>(2 * i + 1);
  const __m512i halves = _mm512_load_si512(upper);
  for (int64_t m = m0; m < m1; m += tile_rows) {
    for (int64_t k = 0; k < x.k; k += 32) {
      const __mmask16 low = V512::Mask(x.k - k),
                      high = x.k - k > 16 ? V512::Mask(x.k - k - 16) : __mmask16{0};
      const float* f = x.f + m * x.stride + k;
      for (int64_t i = 0; i < tile_rows; ++i, out += 32, f += x.stride) {
        if (m + i >= m1) {
          _mm512_store_si512(out, _mm512_setzero_si512());
          continue;
        }
        const __m512i a = _mm512_castps_si512(_mm512_maskz_loadu_ps(low, f));
        const __m512i b = _mm512_castps_si512(_mm512_maskz_loadu_ps(high, f + 16));
        _mm512_store_si512(out, _mm512_permutex2var_epi16(a, halves, b));
      }
    }
  }
}

// A tile of rows, or two where kR is 2, by one strip -> results [rows][16]. tile: values of a tile
// of rows; fetch: the strip lies in memory, and others follow it.
template <int kR, class Tiles>
[[gnu::noinline]] void RunFloatTile(Tiles& tiles, int64_t steps, const uint16_t* rows, int64_t tile,
                                    const uint8_t* w, bool fetch, float* results) {
  constexpr int64_t kAhead = 4096;  // as FetchPair
  tiles.template Zero<0>();
  if constexpr (kR == 2) tiles.template Zero<1>();
  for (int64_t step = 0; step < steps; ++step, rows += tile, w += 1024) {
    for (int64_t at = 0; fetch && at < 1024; at += 64) FetchLine(w + kAhead + at, true);
    tiles.template Load<6>(w, 64);
    tiles.template Load<4>(rows, 64);
    tiles.template DotBF16<0, 4, 6>();
    if constexpr (kR == 2) {
      tiles.template Load<5>(rows + tile * steps, 64);
      tiles.template DotBF16<1, 5, 6>();
    }
  }
  tiles.template Store<0>(results, 64);
  if constexpr (kR == 2) tiles.template Store<1>(results + 256, 64);
}

// ---- From tiles to a kernel ----

// The scratch of a call, within MatMulScratchBytes. Per k at most: integer panels 64 bytes of
// words, 2 x 34 of strips and 16 of rows; BF16 128 of rows and 2 x 32 of strips.
template <PanelType kType>
struct TileScratch {
  static constexpr bool kFloat = kType == PanelType::kBF16;
  static constexpr int64_t kRows = kFloat ? 2 * kTileRows : kTileRows;  // that share a pass over k
  static constexpr int64_t kBlock = kFloat ? kFloatTileBlock : kTileBlock;
  static constexpr int64_t kMinima = Traits<kType>::kMin ? kBlock * kStripRows : 0;

  float* results[2];  // [kRows][16] of each strip
  float* minima[2];   // [kBlock][16] of each strip, of types that have them
  uint8_t* strips[2];
  const uint8_t* weights[2];  // BF16: of the strips, here or where the panel has them
  bool direct = false;        // BF16: the latter
  int8_t* tail;    // integer panels: the last rows, where they make no whole tile: [16][k]
  int32_t* words;  // integer panels
  uint16_t* rows;  // BF16

  TileScratch(void* scratch, int64_t k) {
    const int64_t strip =
        kFloat ? 1024 * FloatTileSteps(k) : TileForm<kType>::Steps(k) * TileForm<kType>::kStepBytes;
    results[0] = static_cast<float*>(scratch);
    results[1] = results[0] + kRows * kStripRows;
    minima[0] = results[1] + kRows * kStripRows;
    minima[1] = minima[0] + kMinima;
    strips[0] = reinterpret_cast<uint8_t*>(minima[1] + kMinima);
    strips[1] = strips[0] + strip;
    weights[0] = strips[0];
    weights[1] = strips[1];
    if constexpr (kFloat) {
      rows = reinterpret_cast<uint16_t*>(strips[1] + strip);
    } else {
      tail = reinterpret_cast<int8_t*>(strips[1] + strip);
      words = reinterpret_cast<int32_t*>(tail + kTileRows * k);
    }
  }
};

// Strip number i of two, for rows [m0, m1).
template <PanelType kType>
BAKESTONE_INLINE void MakeStrip(const Panel& panel, int64_t strip, int i, int64_t m0, int64_t m1,
                                TileScratch<kType>& space) {
  if constexpr (TileScratch<kType>::kFloat) {
    if (space.direct) {
      space.weights[i] = PlanesOf(panel, strip).low;
    } else {
      MakeFloatTileStrip(panel, strip, space.strips[i]);
    }
  } else {
    MakeTileStrip<kType>(panel, strip, space.strips[i]);
    if constexpr (Traits<kType>::kMin) {
      const int64_t steps = TileForm<kType>::Steps(panel.k);
      for (int64_t m = m0; m < m1; m += kTileRows) {
        const int32_t* words = space.words + (m - m0) * steps * TileForm<kType>::kRowWords;
        SumMinima<kType>(steps, space.strips[i], words, space.minima[i] + (m - m0) * kStripRows);
      }
    }
  }
}

// kRows rows from m on by strip number i. The block begins at m0 and ends at m1.
template <PanelType kType, class Tiles>
BAKESTONE_INLINE void RunTileRows(Tiles& tiles, const Activations& x, int i, int64_t m, int64_t m0,
                                  int64_t m1, const TileScratch<kType>& space) {
  if constexpr (TileScratch<kType>::kFloat) {
    const int64_t steps = FloatTileSteps(x.k);
    const auto run = m + kTileRows < m1 ? RunFloatTile<2, Tiles> : RunFloatTile<1, Tiles>;
    run(tiles, steps, space.rows + (m - m0) * 32 * steps, 32 * FloatTileRows(x), space.weights[i],
        space.direct, space.results[i]);
  } else {
    const bool whole = m + kTileRows <= x.rows;
    const int32_t* words =
        space.words + (m - m0) * TileForm<kType>::Steps(x.k) * TileForm<kType>::kRowWords;
    const float* minima = space.minima[i] + (m - m0) * kStripRows;
    RunOneTile<kType>(tiles, x.k, whole ? x.q + m * x.stride : space.tail, whole ? x.stride : x.k,
                      space.strips[i], words, minima, space.results[i]);
  }
}

// The last rows, zeros below them.
BAKESTONE_INLINE void CopyTail(const Activations& x, int8_t* tail) {
  const int64_t left = x.rows % kTileRows;
  if (left == 0) return;
  __builtin_memset(tail, 0, static_cast<size_t>(kTileRows * x.k));
  for (int64_t i = 0; i < left; ++i) {
    __builtin_memcpy(tail + i * x.k, x.q + (x.rows - left + i) * x.stride,
                     static_cast<size_t>(x.k));
  }
}

// Finish (matmul.inl.h) for rows [m, m + rows) of one strip, what does not change from row to row
// done once.
template <Epilogue kEpilogue>
BAKESTONE_INLINE void FinishRows(const MatMulArgs& args, int64_t strip, int64_t m, int64_t rows,
                                 const float* r, const float* up) {
  const __mmask16 there = V512::Mask(args.panel.n - strip * kStripRows);
  const bool biased = args.bias != nullptr;
  const __m512 bias =
      biased ? _mm512_maskz_loadu_ps(there, args.bias + strip * kStripRows) : V512::Zero();
  float* y = args.y + m * args.y_stride + strip * kStripRows;
  for (int64_t i = 0; i < rows; ++i, y += args.y_stride) {
    __m512 x = V512::Load(r + i * kStripRows);
    if (biased) x = V512::Add(x, bias);
    if constexpr (kEpilogue == Epilogue::kAdd) x = V512::Add(_mm512_maskz_loadu_ps(there, y), x);
    if constexpr (kEpilogue == Epilogue::kAddScaled) {
      x = V512::Fma(V512::Set(args.scale), x, _mm512_maskz_loadu_ps(there, y));
    }
    if constexpr (kEpilogue == Epilogue::kSwiGlu) {
      x = SwiGlu<V512>(x, V512::Load(up + i * kStripRows));
    }
    _mm512_mask_storeu_ps(y, there, x);
  }
}

inline void FinishTiles(const MatMulArgs& args, int64_t strip, int64_t m, int64_t rows,
                        const float* r, const float* up) {
  switch (args.epilogue) {
    case Epilogue::kStore:
      return FinishRows<Epilogue::kStore>(args, strip, m, rows, r, up);
    case Epilogue::kAdd:
      return FinishRows<Epilogue::kAdd>(args, strip, m, rows, r, up);
    case Epilogue::kAddScaled:
      return FinishRows<Epilogue::kAddScaled>(args, strip, m, rows, r, up);
    case Epilogue::kSwiGlu:
      return FinishRows<Epilogue::kSwiGlu>(args, strip, m, rows, r, up);
  }
}

// Two strips share the rows while those are in the L1 cache: neighbours, or gate and up.
template <class Tiles, PanelType kType>
void MatMulTiles(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  using Scratch = TileScratch<kType>;
  const Activations& x = args.x;
  Scratch space(scratch, x.k);
  space.direct = Scratch::kFloat && ReadsFloatPanel(args);
  if constexpr (!Scratch::kFloat) CopyTail(x, space.tail);
  const bool gated = args.epilogue == Epilogue::kSwiGlu;
  Tiles tiles(Scratch::kFloat ? FloatRowBytes(args) : TileForm<kType>::kRowBytes,
              static_cast<int>(Scratch::kFloat ? FloatTileRows(x) : kTileRows));
  FetchNext next(args.read_next,
                 (x.rows + Scratch::kRows - 1) / Scratch::kRows * (strips.end - strips.begin));
  for (int64_t m0 = 0; m0 < x.rows; m0 += Scratch::kBlock) {
    const int64_t m1 = m0 + Scratch::kBlock < x.rows ? m0 + Scratch::kBlock : x.rows;
    if constexpr (Scratch::kFloat) {
      MakeFloatTileRows(x, m0, m1, space.rows);
    } else {
      MakeTileWords<kType>(x, m0, m1, space.words);
    }
    for (int64_t strip = strips.begin; strip < strips.end; strip += gated ? 1 : 2) {
      const bool both = gated || strip + 1 < strips.end;
      MakeStrip<kType>(args.panel, strip, 0, m0, m1, space);
      if (both) {
        MakeStrip<kType>(gated ? args.up : args.panel, gated ? strip : strip + 1, 1, m0, m1, space);
      }
      for (int64_t m = m0; m < m1; m += Scratch::kRows) {
        const int64_t rows = m1 - m < Scratch::kRows ? m1 - m : Scratch::kRows;
        for (int i = 0; i < (both ? 2 : 1); ++i) {
          next.Step();
          RunTileRows<kType>(tiles, x, i, m, m0, m1, space);
        }
        FinishTiles(args, strip, m, rows, space.results[0], space.results[1]);
        if (both && !gated) FinishTiles(args, strip + 1, m, rows, space.results[1], nullptr);
      }
    }
  }
}

}  // namespace
}  // namespace bakestone
