// What the avx512 table computes on bf16 dot products, where they pay (dispatch.cc): attention over
// pages of bf16. vdpbf16ps adds the product of the upper halves of two words to a lane and then
// that of the lower ones, each as a fused multiply-add: with steps k and k + 2 in a word it goes
// along the even chain of the pair order, and with k + 1 and k + 3 along the odd one. So the bits
// are those of two multiply-adds, at twice their rate. No operand is so small that it would be
// flushed (docs/numerics.md).
#include "kernels/cpu/attention_float.inl.h"
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
  BAKESTONE_INLINE static void Put(const float* x, int64_t n, Left* out) {
    for (int64_t i = 0; i < n; i += 32) {
      const int64_t left = n - i;
      const __m512 second = left > 16 ? RoundBF16<V>(V::LoadN(x + i + 16, left - 16)) : V::Zero();
      const __m512i words = Words(RoundBF16<V>(V::LoadN(x + i, left)), second);
      _mm512_mask_storeu_epi32(out + i / 2, V::Mask(LeftOf(left)), words);
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

constinit const DotKernels kDotsAvx512 = {AddsUpperThenLower, RunAttention<V512, PagesDot>,
                                          RunSegment<V512, PagesDot>};

}  // namespace bakestone
