// What the avx512 table computes on bf16 dot products, where they pay (dispatch.cc): attention over
// pages of bf16, and many rows by panels of bf16. vdpbf16ps adds the product of the upper halves of
// two words to a lane and then that of the lower ones, each as a fused multiply-add: with steps k
// and k + 2 in a word it goes along the even chain of the pair order, and with k + 1 and k + 3
// along the odd one. So the bits are those of two multiply-adds, at twice their rate. No operand is
// so small that it would be flushed (docs/numerics.md).
#include "kernels/cpu/attention_float.inl.h"
#include "kernels/cpu/matmul_wide.inl.h"
#include "kernels/cpu/peak.inl.h"
#include "kernels/cpu/vec_avx512.h"
#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

BAKESTONE_INLINE __m512 DotBF16(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// Words of pairs (k, k + 1) and (k + 2, k + 3) to (k, k + 2) and (k + 1, k + 3), the first of each
// in the upper half.
BAKESTONE_INLINE void EvenAndOdd(__m512i first, __m512i second, __m512i* even, __m512i* odd) {
  const __m512i low = _mm512_set1_epi32(0xFFFF);
  constexpr int kSelect = 0xCA;  // first ? second : third
  *even = _mm512_ternarylogic_epi32(low, second, _mm512_slli_epi32(first, 16), kSelect);
  *odd = _mm512_ternarylogic_epi32(low, _mm512_srli_epi32(second, 16), first, kSelect);
}

template <class V>
struct ElementDot {
  using Left = uint32_t;  // a word of an even and one of an odd chain for every four values
  static constexpr int64_t kBytes = 2, kLane = 4;

  BAKESTONE_INLINE static __m512 Probability(__m512 x) { return ElementBF16<V>::Probability(x); }

  BAKESTONE_INLINE static constexpr int64_t LeftOf(int64_t n) { return (n + 3) / 4 * 2; }
  // kRound: x is rounded; else it is already.
  template <bool kRound = true>
  BAKESTONE_INLINE static void Put(const float* x, int64_t n, Left* out) {
    const auto load = [&](int64_t at) __attribute__((always_inline)) {
      const __m512 value = n > at ? V::LoadN(x + at, n - at) : V::Zero();
      return kRound ? RoundBF16<V>(value) : value;
    };
    for (int64_t i = 0; i < n; i += 32) {
      _mm512_mask_storeu_epi32(out + i / 2, V::Mask(LeftOf(n - i)), Words(load(i), load(i + 16)));
    }
  }
  BAKESTONE_INLINE static const Left* OfProbabilities(const float* p, Left* space) {
    _mm512_store_si512(space, Words(V::Load(p), V::Load(p + 16)));
    return space;
  }

  template <bool kFetch, int kR, int kW, bool kPart = false>
  BAKESTONE_INLINE static void Sums(const Left* const (&a)[kR], const uint8_t* const (&b)[kW],
                                    const uint8_t* const (&next)[kW], int64_t second, int64_t n,
                                    __m512 (&sum)[kR][kW], int64_t lanes = 16) {
    const __mmask16 mask = kPart ? V::Mask(lanes) : __mmask16{0xFFFF};
    __m512 even[kR][kW], odd[kR][kW];
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) even[i][v] = odd[i][v] = V::Zero();
    }
    int64_t offset = 0;
    for (int64_t k = 0; k < n; k += 4, offset += 4 * second) {
      __m512i b0[kW], b1[kW];
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) {
        const auto load = [&](int64_t at) __attribute__((always_inline)) {
          return kPart ? _mm512_maskz_loadu_epi32(mask, b[v] + at) : _mm512_loadu_si512(b[v] + at);
        };
        const __m512i pair = k + 2 < n ? load(offset + 2 * second) : V::SetI(0);
        EvenAndOdd(load(offset), pair, &b0[v], &b1[v]);
        if constexpr (kFetch) {
          FetchLine(next[v] + offset, false);
          FetchLine(next[v] + offset + 2 * second, false);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
        const __m512i a0 = Broadcast(a[i] + k / 2), a1 = Broadcast(a[i] + k / 2 + 1);
#pragma GCC unroll 8
        for (int v = 0; v < kW; ++v) {
          even[i][v] = DotBF16(even[i][v], b0[v], a0);
          odd[i][v] = DotBF16(odd[i][v], b1[v], a1);
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) sum[i][v] = V::Add(even[i][v], odd[i][v]);
    }
  }

 private:
  BAKESTONE_INLINE static __m512i Broadcast(const Left* word) {
    return _mm512_set1_epi32(static_cast<int32_t>(*word));
  }
  // Of 32 rounded values: words 4i / 2 and 4i / 2 + 1 hold values 4i and 4i + 2, 4i + 1 and 4i + 3.
  BAKESTONE_INLINE static __m512i Words(__m512 first, __m512 second) {
    const __m512i upper =
        _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29);
    const __m512i lower = _mm512_add_epi32(upper, _mm512_set1_epi32(2));
    const __m512i a = _mm512_castps_si512(_mm512_permutex2var_ps(first, upper, second));
    const __m512i b = _mm512_castps_si512(_mm512_permutex2var_ps(first, lower, second));
    return _mm512_or_si512(a, _mm512_srli_epi32(b, 16));
  }
};

template <class V>
using PagesDot = FloatPages<V, ElementDot>;

// Products with panels of bf16: rows as words of both chains, tiles of up to six rows by two
// strips, or twelve by one.
template <class V>
struct DotProducts {
  using E = ElementDot<V>;
  using Left = typename E::Left;

  static constexpr int64_t kRowBlock = 64;  // rows that are held as words at a time
  static constexpr int64_t kLeast = 8;      // fewer wait for the weights, not for the products
  static constexpr int kTall = 12;

  int64_t k, row_words;  // k is even
  Left* words;           // [kRowBlock][row_words]
  uint8_t* strips;       // two, where they have to be flushed

  DotProducts(const MatMulArgs& args, void* scratch)
      : k(args.x.k + args.x.k % 2),
        row_words((E::LeftOf(k) + 15) / 16 * 16),
        words(static_cast<Left*>(scratch)),
        strips(reinterpret_cast<uint8_t*>(words + kRowBlock * row_words)) {}

  void PackRows(const Activations& x, int64_t m0, int64_t m1) const {
    for (int64_t m = m0; m < m1; ++m) {
      E::template Put<false>(x.f + m * x.stride, k, words + (m - m0) * row_words);
    }
  }

  // The strip's weights, those below 2^-50 as zeros.
  const uint8_t* Weights(const Panel& panel, int64_t strip, int which) const {
    const uint8_t* from = PlanesOf(panel, strip).low;
    if (panel.flushed) return from;
    uint8_t* to = strips + which * k * 32;
    const __m512i least = _mm512_set1_epi16((127 - 50) << 7);
    for (int64_t at = 0; at < k * 32; at += 64) {
      const __m512i w = _mm512_loadu_si512(from + at);
      const __m512i magnitude = _mm512_and_si512(w, _mm512_set1_epi16(0x7FFF));
      const __mmask32 kept = _mm512_cmpge_epu16_mask(magnitude, least);
      _mm512_store_si512(to + at, _mm512_maskz_mov_epi16(kept, w));
    }
    return to;
  }

  // Rows [row, row + kR) of the block by kW strips whose weights are w.
  template <int kR, int kW>
  [[gnu::noinline]] void Tile(int64_t row, const uint8_t* const (&w)[kW],
                              __m512 (&r)[kTall][2]) const {
    alignas(64) float sums[kR][kW][16] = {};
    for (int64_t k0 = 0; k0 < k; k0 += 32) {
      const int64_t n = k - k0 < 32 ? k - k0 : 32;
      const Left* a[kR];
      for (int i = 0; i < kR; ++i) a[i] = words + (row + i) * row_words + E::LeftOf(k0);
      const uint8_t* b[kW];
      for (int v = 0; v < kW; ++v) b[v] = w[v] + k0 * 32;
      __m512 part[kR][kW];
      E::template Sums<false, kR, kW>(a, b, b, 32, n, part);
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < kW; ++v) V::Store(sums[i][v], V::Add(V::Load(sums[i][v]), part[i][v]));
      }
    }
    for (int i = 0; i < kR; ++i) {
      for (int v = 0; v < kW; ++v) r[i][v] = V::Load(sums[i][v]);
    }
  }

  // Returns the rows of the tile. As high as its sums and weights fit into the registers.
  template <int kW>
  int64_t RunTile(int64_t row, int64_t left, const uint8_t* const (&w)[kW],
                  __m512 (&r)[kTall][2]) const {
    if constexpr (kW == 1) {
      if (left >= kTall) {
        Tile<kTall, kW>(row, w, r);
        return kTall;
      }
      if (left >= 8) {
        Tile<8, kW>(row, w, r);
        return 8;
      }
    }
    if (left >= 10 || left == 6 || left == 7) {  // eight are two of four
      Tile<6, kW>(row, w, r);
      return 6;
    }
    if (left >= 4) {
      Tile<4, kW>(row, w, r);
      return 4;
    }
    if (left >= 2) {
      Tile<2, kW>(row, w, r);
      return 2;
    }
    Tile<1, kW>(row, w, r);
    return 1;
  }

  // Strips of a pair; or one that is left over: then `second` is null.
  void RunPair(const MatMulArgs& args, int64_t strip, const Panel* second, int64_t second_strip,
               int64_t m0, int64_t m1) const {
    const uint8_t* w[2] = {Weights(args.panel, strip, 0),
                           second != nullptr ? Weights(*second, second_strip, 1) : nullptr};
    const uint8_t* one[1] = {w[0]};
    for (int64_t m = m0; m < m1;) {
      __m512 r[kTall][2];
      const int64_t rows =
          second != nullptr ? RunTile<2>(m - m0, m1 - m, w, r) : RunTile<1>(m - m0, m1 - m, one, r);
      for (int64_t i = 0; i < rows; ++i, ++m) {
        Finish<V>(args, strip, m, r[i][0], r[i][1]);
        if (second == &args.panel) Finish<V>(args, second_strip, m, r[i][1], r[i][1]);
      }
    }
  }

  // The second product of an adapter: kSteps times four k, whose weights stay in registers for all
  // rows.
  template <int kS, int kSteps>
  [[gnu::noinline]] void ShortStrips(const MatMulArgs& args, int64_t strip, int64_t m0,
                                     int64_t m1) const {
    __m512i even_weights[kS][kSteps], odd_weights[kS][kSteps];
#pragma GCC unroll 2
    for (int v = 0; v < kS; ++v) {
      const uint8_t* from = PlanesOf(args.panel, strip + v).low;
#pragma GCC unroll 8
      for (int i = 0; i < kSteps; ++i) {
        const bool pair = 4 * i + 2 < k;
        EvenAndOdd(_mm512_loadu_si512(from + 128 * i),
                   pair ? _mm512_loadu_si512(from + 128 * i + 64) : V::SetI(0), &even_weights[v][i],
                   &odd_weights[v][i]);
      }
    }
    const auto scale = V::Set(args.scale);
    const int64_t lanes = args.panel.n - (strip + kS - 1) * kStripRows;  // of the last strip
    float* y = args.y + m0 * args.y_stride + strip * kStripRows;
    const Left* a = words;
    for (int64_t m = m0; m < m1; ++m, y += args.y_stride, a += row_words) {
      __m512 even[kS], odd[kS];
#pragma GCC unroll 2
      for (int v = 0; v < kS; ++v) even[v] = odd[v] = V::Zero();
#pragma GCC unroll 8
      for (int i = 0; i < kSteps; ++i) {
        const __m512i a0 = V::SetI(static_cast<int32_t>(a[2 * i])),
                      a1 = V::SetI(static_cast<int32_t>(a[2 * i + 1]));
#pragma GCC unroll 2
        for (int v = 0; v < kS; ++v) {
          even[v] = DotBF16(even[v], even_weights[v][i], a0);
          odd[v] = DotBF16(odd[v], odd_weights[v][i], a1);
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < kS; ++v) {
        const auto r = V::Add(V::Zero(), V::Add(even[v], odd[v]));
        float* to = y + v * kStripRows;
        if (v + 1 < kS || lanes >= kStripRows) {
          V::Store(to, V::Fma(scale, r, V::Load(to)));
        } else {
          V::StoreN(to, V::Fma(scale, r, V::LoadN(to, lanes)), lanes);
        }
      }
    }
  }

  static bool IsShort(const MatMulArgs& args) {
    return args.epilogue == Epilogue::kAddScaled && args.bias == nullptr && args.panel.flushed &&
           args.x.k <= 32;
  }

  // All strips of the range, of a product that is short: kSteps, or more.
  template <int kSteps = 1>
  void RunShort(const MatMulArgs& args, Range strips, int64_t m0, int64_t m1) const {
    if constexpr (kSteps < 8) {
      if (k > 4 * kSteps) return RunShort<kSteps + 1>(args, strips, m0, m1);
    }
    constexpr int kS = kSteps <= 4 ? 2 : 1;  // whose weights fit into the registers
    int64_t strip = strips.begin;
    for (; strip + kS <= strips.end; strip += kS) ShortStrips<kS, kSteps>(args, strip, m0, m1);
    if (strip < strips.end) ShortStrips<1, kSteps>(args, strip, m0, m1);
  }

  static void Run(const MatMulArgs& args, Range strips, void* scratch) noexcept {
    const bool is_short = IsShort(args);
    if (args.x.rows < (is_short ? 2 : kLeast) || args.x.type != ActType::kBF16) {
      return MatMul<V, PanelType::kBF16>(args, strips, scratch);
    }
    const DotProducts products(args, scratch);
    const bool gated = args.epilogue == Epilogue::kSwiGlu;
    for (int64_t m0 = 0; m0 < args.x.rows; m0 += kRowBlock) {
      const int64_t m1 = m0 + kRowBlock < args.x.rows ? m0 + kRowBlock : args.x.rows;
      products.PackRows(args.x, m0, m1);
      if (is_short) {
        products.RunShort(args, strips, m0, m1);
        continue;
      }
      for (int64_t strip = strips.begin; strip < strips.end; strip += gated ? 1 : 2) {
        const bool alone = !gated && strip + 1 == strips.end;
        products.RunPair(args, strip,
                         alone   ? nullptr
                         : gated ? &args.up
                                 : &args.panel,
                         gated ? strip : strip + 1, m0, m1);
      }
    }
  }
};

int64_t PeakBF16(int64_t rounds, const uint8_t* operands, float* result) noexcept {
  constexpr int kSums = 12;
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512i w = _mm512_set1_epi16(0x3F00);
  for (int64_t round = 0; round < rounds; ++round) {
    // Another address each round, so that no product can be taken out of the loop.
    const uint8_t* a = operands + kPeakOperandBytes / 2 + round % 32 * 64;
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      int32_t word;
      __builtin_memcpy(&word, a + 4 * i, 4);
      sums[i] = DotBF16(sums[i], w, _mm512_set1_epi32(word));
    }
  }
  __m512 total = _mm512_setzero_ps();
  for (const __m512& sum : sums) total = _mm512_add_ps(total, sum);
  _mm512_storeu_ps(result, total);
  return rounds * kSums * 32;
}

// Numbers that differ in the last bits whenever the order of the additions does: bf16 with all bits
// of the fraction in use, sums of either sign.
bool AddsUpperThenLower() noexcept {
  uint64_t state = 1;
  const auto draw = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 32);
  };
  const auto value = [](uint32_t bits) { return __builtin_bit_cast(float, bits); };
  for (int round = 0; round < 256; ++round) {
    alignas(64) uint32_t a[16], b[16];
    alignas(64) float c[16], sums[16];
    for (int i = 0; i < 16; ++i) {  // magnitudes from 2^-7 to 2^9
      const uint32_t sign = 0x80008000u, fraction = 0x007F007Fu, exponent = 0x3C003C00u;
      a[i] = (draw() & (sign | fraction | 0x07800780u)) | exponent;
      b[i] = (draw() & (sign | fraction | 0x07800780u)) | exponent;
      c[i] = value((draw() & 0x87FFFFFFu) | 0x3C000000u);
    }
    _mm512_store_ps(sums, DotBF16(_mm512_load_ps(c), _mm512_load_si512(a), _mm512_load_si512(b)));
    for (int i = 0; i < 16; ++i) {
      const float upper =
          __builtin_fmaf(value(a[i] & 0xFFFF0000u), value(b[i] & 0xFFFF0000u), c[i]);
      const float both = __builtin_fmaf(value(a[i] << 16), value(b[i] << 16), upper);
      if (__builtin_bit_cast(uint32_t, both) != __builtin_bit_cast(uint32_t, sums[i])) return false;
    }
  }
  return true;
}

}  // namespace

constinit const DotKernels kDotsAvx512 = {AddsUpperThenLower, DotProducts<V512>::Run,
                                          RunAttention<V512, PagesDot>, RunSegment<V512, PagesDot>};
constexpr PeakKernels kPeakAvx512Dots = {PeakInt8<V512>, PeakFloat<V512>, PeakBF16};

}  // namespace bakestone
