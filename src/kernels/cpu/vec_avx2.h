// Sixteen lanes in two registers; the same names as vec_avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {
namespace {

struct V256 {
  struct F {
    __m256 lo, hi;
  };
  struct I {
    __m256i lo, hi;
  };
  using B = I;

  static constexpr int kRows = 4;
  static constexpr bool kWideTiles = false;  // too few registers for tiles of two strips
  static constexpr int kPairRows = 2;
  static constexpr int kPairWidth = 1;
  static constexpr int kByteBias = 0;  // vpmaddubsw saturates: 8-bit weights are signed here

  BAKESTONE_INLINE static __m256i Mask8(int64_t n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : static_cast<int>(n)), lanes);
  }

  BAKESTONE_INLINE static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  BAKESTONE_INLINE static F Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  BAKESTONE_INLINE static F Load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  BAKESTONE_INLINE static F LoadN(const float* p, int64_t n) {
    return {_mm256_maskload_ps(p, Mask8(n)), _mm256_maskload_ps(p + 8, Mask8(n - 8))};
  }
  BAKESTONE_INLINE static void Store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  BAKESTONE_INLINE static void StoreN(float* p, F x, int64_t n) {
    _mm256_maskstore_ps(p, Mask8(n), x.lo);
    _mm256_maskstore_ps(p + 8, Mask8(n - 8), x.hi);
  }
  BAKESTONE_INLINE static F LoadHalf(const uint8_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))};
  }
  BAKESTONE_INLINE static F LoadEven(const uint8_t* p) { return OfBits(Shl<16>(LoadB(p))); }
  BAKESTONE_INLINE static F LoadOdd(const uint8_t* p) {
    return OfBits(AndI(LoadB(p), SetI(static_cast<int32_t>(0xFFFF0000u))));
  }
  BAKESTONE_INLINE static F Add(F a, F b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static F Sub(F a, F b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static F Mul(F a, F b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static F Div(F a, F b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  BAKESTONE_INLINE static F Min(F a, F b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static F Max(F a, F b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static F Abs(F x) { return OfBits(AndI(Bits(x), SetI(0x7FFFFFFF))); }
  BAKESTONE_INLINE static F KeepFrom(F a, float limit) {
    const F m = Abs(a), l = Set(limit);
    return {_mm256_and_ps(a.lo, _mm256_cmp_ps(m.lo, l.lo, _CMP_GE_OQ)),
            _mm256_and_ps(a.hi, _mm256_cmp_ps(m.hi, l.hi, _CMP_GE_OQ))};
  }
  BAKESTONE_INLINE static F FmaFrom(F a, F b, F acc, float limit) {
    return Fma(KeepFrom(a, limit), b, acc);
  }
  BAKESTONE_INLINE static F SelectLess(F x, F y, F a, F b) {
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))};
  }
  BAKESTONE_INLINE static I KeepWhere(I a, F x, float limit) {
    const F l = Set(limit);
    return {_mm256_and_si256(a.lo, _mm256_castps_si256(_mm256_cmp_ps(x.lo, l.lo, _CMP_GE_OQ))),
            _mm256_and_si256(a.hi, _mm256_castps_si256(_mm256_cmp_ps(x.hi, l.hi, _CMP_GE_OQ)))};
  }
  BAKESTONE_INLINE static F FirstN(F a, F b, int64_t n) {
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(Mask8(n))),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(Mask8(n - 8)))};
  }

  BAKESTONE_INLINE static I Bits(F x) {
    return {_mm256_castps_si256(x.lo), _mm256_castps_si256(x.hi)};
  }
  BAKESTONE_INLINE static F OfBits(I x) {
    return {_mm256_castsi256_ps(x.lo), _mm256_castsi256_ps(x.hi)};
  }
  BAKESTONE_INLINE static I SetI(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  BAKESTONE_INLINE static I AddI(I a, I b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static I SubI(I a, I b) {
    return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static I MulI(I a, I b) {
    return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static I AndI(I a, I b) {
    return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static I OrI(I a, I b) {
    return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
  }
  BAKESTONE_INLINE static I MaxI(I a, I b) {
    return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
  }
  template <int kShift>
  BAKESTONE_INLINE static I Shl(I a) {
    return {_mm256_slli_epi32(a.lo, kShift), _mm256_slli_epi32(a.hi, kShift)};
  }
  template <int kShift>
  BAKESTONE_INLINE static I Shr(I a) {
    return {_mm256_srai_epi32(a.lo, kShift), _mm256_srai_epi32(a.hi, kShift)};
  }
  template <int kShift>
  BAKESTONE_INLINE static I ShrU(I a) {
    return {_mm256_srli_epi32(a.lo, kShift), _mm256_srli_epi32(a.hi, kShift)};
  }
  BAKESTONE_INLINE static F ToFloat(I x) {
    return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)};
  }
  BAKESTONE_INLINE static I Truncate(F x) {
    return {_mm256_cvttps_epi32(x.lo), _mm256_cvttps_epi32(x.hi)};
  }
  BAKESTONE_INLINE static I Nearest(F x) {
    return {_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)};
  }
  BAKESTONE_INLINE static __m128i Load8(const uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  BAKESTONE_INLINE static I LoadU8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi32(Load8(p)), _mm256_cvtepu8_epi32(Load8(p + 8))};
  }
  BAKESTONE_INLINE static I LoadI8(const uint8_t* p) {
    return {_mm256_cvtepi8_epi32(Load8(p)), _mm256_cvtepi8_epi32(Load8(p + 8))};
  }
  BAKESTONE_INLINE static void StoreI8(int8_t* p, I x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.lo, x.hi), 0xD8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  BAKESTONE_INLINE static int32_t SumI(I x) {
    const __m256i a = _mm256_add_epi32(x.lo, x.hi);
    __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xB1)));
  }
  BAKESTONE_INLINE static int32_t MaxOfI(I x) {
    const __m256i a = _mm256_max_epi32(x.lo, x.hi);
    __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(b, _mm_shuffle_epi32(b, 0xB1)));
  }

  // Lane i: the greatest lane, or the sum, of v[i], i < n; any number in the others.
  BAKESTONE_INLINE static I MaxOfEach(const I (&v)[16], int n) {
    alignas(64) int32_t lanes[16] = {};
    for (int i = 0; i < n; ++i) lanes[i] = MaxOfI(v[i]);
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(lanes)),
            _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes + 8))};
  }
  BAKESTONE_INLINE static I SumOfEach(const I (&v)[16], int n) {
    alignas(64) int32_t lanes[16] = {};
    for (int i = 0; i < n; ++i) lanes[i] = SumI(v[i]);
    return {_mm256_load_si256(reinterpret_cast<const __m256i*>(lanes)),
            _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes + 8))};
  }
  BAKESTONE_INLINE static void StoreI16N(int16_t* p, I x, int64_t n) {
    alignas(64) int32_t lanes[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), x.lo);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes + 8), x.hi);
    for (int64_t i = 0; i < n; ++i) p[i] = static_cast<int16_t>(lanes[i]);
  }

  BAKESTONE_INLINE static B LoadB(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  BAKESTONE_INLINE static B SetB(int x) {
    const __m256i v = _mm256_set1_epi8(static_cast<char>(x));
    return {v, v};
  }
  BAKESTONE_INLINE static B AndB(B a, B b) { return AndI(a, b); }
  BAKESTONE_INLINE static B OrB(B a, B b) { return OrI(a, b); }
  template <int kShift>
  BAKESTONE_INLINE static B ShrB(B a) {
    return {_mm256_srli_epi16(a.lo, kShift), _mm256_srli_epi16(a.hi, kShift)};
  }
  template <int kShift>
  BAKESTONE_INLINE static B ShlB(B a) {
    return {_mm256_slli_epi16(a.lo, kShift), _mm256_slli_epi16(a.hi, kShift)};
  }
  BAKESTONE_INLINE static B Lookup(const uint8_t* table16, B nibbles) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table16)));
    return {_mm256_shuffle_epi8(table, nibbles.lo), _mm256_shuffle_epi8(table, nibbles.hi)};
  }
  BAKESTONE_INLINE static I AsI(B x) { return x; }

  // Sums of int16 pairs hold this many vpmaddubsw of kBits-bit weights: steps * 2 * w * 127 <
  // 32768.
  template <int kBits>
  static constexpr int StepsOf16() {
    return kBits <= 4 ? 8 : kBits == 5 ? 4 : kBits == 6 ? 2 : 1;
  }

  // One step: sums of pairs as int16. 8-bit weights are biased by 128 in the panel; |w| times a
  // with w's sign stays below 32,768: 2 * 128 * 127 = 32,512.
  template <int kBits>
  BAKESTONE_INLINE static __m256i MulAdd(__m256i w, __m256i a) {
    if constexpr (kBits == 8) {
      w = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
      return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
    } else {
      return _mm256_maddubs_epi16(w, a);
    }
  }

  template <int kBits, int kSteps>
  BAKESTONE_INLINE static I Dot(I acc, const B* w, const int8_t* a) {
    constexpr int kChunk = StepsOf16<kBits>() < kSteps ? StepsOf16<kBits>() : kSteps;
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int i = 0; i < kSteps; i += kChunk) {
      __m256i lo = _mm256_setzero_si256(), hi = lo;
#pragma GCC unroll 8
      for (int j = i; j < i + kChunk; ++j) {
        int32_t word;
        __builtin_memcpy(&word, a + 4 * j, 4);
        const __m256i x = _mm256_set1_epi32(word);
        lo = _mm256_add_epi16(lo, MulAdd<kBits>(w[j].lo, x));
        hi = _mm256_add_epi16(hi, MulAdd<kBits>(w[j].hi, x));
      }
      acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(lo, ones));
      acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(hi, ones));
    }
    return acc;
  }
  BAKESTONE_INLINE static I DotPairs(I acc, I pairs, const int16_t* sums) {
    int32_t word;
    __builtin_memcpy(&word, sums, 4);
    const __m256i x = _mm256_set1_epi32(word);
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(pairs.lo, x)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(pairs.hi, x))};
  }

  BAKESTONE_INLINE static float TreeSum(F x) {
    const __m256 a = _mm256_add_ps(x.lo, x.hi);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
  }
  BAKESTONE_INLINE static float MaxOf(F x) {
    const __m256 a = _mm256_max_ps(x.lo, x.hi);
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
  }
};

}  // namespace
}  // namespace bakestone
