// Sixteen lanes in one register: what the templates of this folder are written over (vec_avx2.h has
// the same names). F: 16 floats, I: 16 int32, B: 64 bytes as [16][4]. Anonymous namespace: an
// object of this ISA exports its table and nothing else.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {
namespace {

struct V512 {
  using F = __m512;
  using I = __m512i;
  using B = __m512i;

  static constexpr int kRows = 8;  // rows of an integer tile: 8 weight, 8 to 16 sum registers
  static constexpr bool kWideTiles = true;  // of two strips by 4 or 6 rows
  static constexpr int kPairRows = 6;  // float tile: 6 x 2 even and odd chains and 12 sums are 24
  static constexpr int kPairWidth = 2;
  static constexpr int kByteBias = 128;  // 8-bit weights stay unsigned for vpdpbusd

  BAKESTONE_INLINE static __mmask16 Mask(int64_t n) {
    return n >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << n) - 1);
  }

  BAKESTONE_INLINE static F Zero() { return _mm512_setzero_ps(); }
  BAKESTONE_INLINE static F Set(float x) { return _mm512_set1_ps(x); }
  BAKESTONE_INLINE static F Load(const float* p) { return _mm512_loadu_ps(p); }
  BAKESTONE_INLINE static F LoadN(const float* p, int64_t n) {
    return _mm512_maskz_loadu_ps(Mask(n), p);
  }
  BAKESTONE_INLINE static void Store(float* p, F x) { _mm512_storeu_ps(p, x); }
  BAKESTONE_INLINE static void StoreN(float* p, F x, int64_t n) {
    _mm512_mask_storeu_ps(p, Mask(n), x);
  }
  BAKESTONE_INLINE static F LoadHalf(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  // Even and odd elements of sixteen pairs of bf16.
  BAKESTONE_INLINE static F LoadEven(const uint8_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  BAKESTONE_INLINE static F LoadOdd(const uint8_t* p) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  BAKESTONE_INLINE static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  BAKESTONE_INLINE static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  BAKESTONE_INLINE static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  BAKESTONE_INLINE static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  BAKESTONE_INLINE static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  BAKESTONE_INLINE static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  BAKESTONE_INLINE static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  BAKESTONE_INLINE static F Abs(F x) { return _mm512_abs_ps(x); }
  // a where |a| >= limit, else +0.
  BAKESTONE_INLINE static F KeepFrom(F a, float limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(Abs(a), Set(limit), _CMP_GE_OQ), a);
  }
  // acc + a * b where |a| >= limit, else acc.
  BAKESTONE_INLINE static F FmaFrom(F a, F b, F acc, float limit) {
    return _mm512_mask3_fmadd_ps(a, b, acc, _mm512_cmp_ps_mask(Abs(a), Set(limit), _CMP_GE_OQ));
  }
  // x < y ? a : b
  BAKESTONE_INLINE static F SelectLess(F x, F y, F a, F b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
  }
  // a where x >= limit, else 0.
  BAKESTONE_INLINE static I KeepWhere(I a, F x, float limit) {
    return _mm512_maskz_mov_epi32(_mm512_cmp_ps_mask(x, Set(limit), _CMP_GE_OQ), a);
  }
  // The first n lanes of a, the others of b.
  BAKESTONE_INLINE static F FirstN(F a, F b, int64_t n) {
    return _mm512_mask_blend_ps(n <= 0 ? __mmask16{0} : Mask(n), b, a);
  }

  BAKESTONE_INLINE static I Bits(F x) { return _mm512_castps_si512(x); }
  BAKESTONE_INLINE static F OfBits(I x) { return _mm512_castsi512_ps(x); }
  BAKESTONE_INLINE static I SetI(int32_t x) { return _mm512_set1_epi32(x); }
  BAKESTONE_INLINE static I AddI(I a, I b) { return _mm512_add_epi32(a, b); }
  BAKESTONE_INLINE static I SubI(I a, I b) { return _mm512_sub_epi32(a, b); }
  BAKESTONE_INLINE static I MulI(I a, I b) { return _mm512_mullo_epi32(a, b); }
  BAKESTONE_INLINE static I AndI(I a, I b) { return _mm512_and_si512(a, b); }
  BAKESTONE_INLINE static I OrI(I a, I b) { return _mm512_or_si512(a, b); }
  BAKESTONE_INLINE static I MaxI(I a, I b) { return _mm512_max_epi32(a, b); }
  template <int kShift>
  BAKESTONE_INLINE static I Shl(I a) {
    return _mm512_slli_epi32(a, kShift);
  }
  template <int kShift>
  BAKESTONE_INLINE static I Shr(I a) {  // arithmetic
    return _mm512_srai_epi32(a, kShift);
  }
  template <int kShift>
  BAKESTONE_INLINE static I ShrU(I a) {
    return _mm512_srli_epi32(a, kShift);
  }
  BAKESTONE_INLINE static F ToFloat(I x) { return _mm512_cvtepi32_ps(x); }
  BAKESTONE_INLINE static I Truncate(F x) { return _mm512_cvttps_epi32(x); }
  BAKESTONE_INLINE static I Nearest(F x) { return _mm512_cvtps_epi32(x); }
  BAKESTONE_INLINE static I LoadU8(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  BAKESTONE_INLINE static I LoadI8(const uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  BAKESTONE_INLINE static void StoreI8(int8_t* p, I x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
  }
  BAKESTONE_INLINE static int32_t SumI(I x) { return _mm512_reduce_add_epi32(x); }
  BAKESTONE_INLINE static int32_t MaxOfI(I x) { return _mm512_reduce_max_epi32(x); }

  // Lane i: the greatest lane, or the sum, of v[i], i < n; any number in the others.
  BAKESTONE_INLINE static I MaxOfEach(const I (&v)[16], int n) {
    if (n > 4) return ReduceEach(v, MaxI);
    alignas(64) int32_t lanes[16] = {};
    for (int i = 0; i < n; ++i) lanes[i] = MaxOfI(v[i]);
    return _mm512_load_si512(lanes);
  }
  BAKESTONE_INLINE static I SumOfEach(const I (&v)[16], int) { return ReduceEach(v, AddI); }
  BAKESTONE_INLINE static void StoreI16N(int16_t* p, I x, int64_t n) {
    _mm512_mask_cvtepi32_storeu_epi16(p, Mask(n), x);
  }

  BAKESTONE_INLINE static B LoadB(const uint8_t* p) { return _mm512_loadu_si512(p); }
  BAKESTONE_INLINE static B SetB(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  BAKESTONE_INLINE static B AndB(B a, B b) { return _mm512_and_si512(a, b); }
  BAKESTONE_INLINE static B OrB(B a, B b) { return _mm512_or_si512(a, b); }
  // Shifts of 16-bit units: mask afterwards.
  template <int kShift>
  BAKESTONE_INLINE static B ShrB(B a) {
    return _mm512_srli_epi16(a, kShift);
  }
  template <int kShift>
  BAKESTONE_INLINE static B ShlB(B a) {
    return _mm512_slli_epi16(a, kShift);
  }
  BAKESTONE_INLINE static B Lookup(const uint8_t* table16, B nibbles) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table16));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
  }
  BAKESTONE_INLINE static I AsI(B x) { return x; }

  // acc + the dot product of 4 * kSteps weights a lane with the same activations. kBits bounds the
  // weights; 8: biased by kByteBias.
  template <int kBits, int kSteps>
  BAKESTONE_INLINE static I Dot(I acc, const B* w, const int8_t* a) {
#pragma GCC unroll 8
    for (int i = 0; i < kSteps; ++i) {
      int32_t word;
      __builtin_memcpy(&word, a + 4 * i, 4);
      acc = _mm512_dpbusd_epi32(acc, w[i], _mm512_set1_epi32(word));
    }
    return acc;
  }
  // Four activations for every lane, in a register: it meets more than one vector of weights, and a
  // memory operand would be loaded for each.
  BAKESTONE_INLINE static I LoadWord(const int8_t* a) {
    int32_t word;
    __builtin_memcpy(&word, a, 4);
    I lanes = _mm512_set1_epi32(word);
    asm("" : "+v"(lanes));
    return lanes;
  }
  BAKESTONE_INLINE static I DotWord(I acc, B w, I a) { return _mm512_dpbusd_epi32(acc, w, a); }
  // acc + the products of int16 pairs with one pair for all lanes.
  BAKESTONE_INLINE static I DotPairs(I acc, I pairs, const int16_t* sums) {
    int32_t word;
    __builtin_memcpy(&word, sums, 4);
    return _mm512_dpwssd_epi32(acc, pairs, _mm512_set1_epi32(word));
  }

  // The fixed tree: halves added until one is left.
  BAKESTONE_INLINE static float TreeSum(F x) {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
  }
  BAKESTONE_INLINE static float MaxOf(F x) { return _mm512_reduce_max_ps(x); }

 private:
  // Sixteen reductions at once: rows are interleaved, and halves of them meet, four times.
  template <class Op>
  BAKESTONE_INLINE static I ReduceEach(const I (&v)[16], Op op) {
    I pairs[8], fours[4], eights[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      pairs[i] = op(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                    _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      fours[i] = op(_mm512_unpacklo_epi64(pairs[2 * i], pairs[2 * i + 1]),
                    _mm512_unpackhi_epi64(pairs[2 * i], pairs[2 * i + 1]));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      eights[i] = op(_mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0x88),
                     _mm512_shuffle_i32x4(fours[2 * i], fours[2 * i + 1], 0xDD));
    }
    return op(_mm512_shuffle_i32x4(eights[0], eights[1], 0x88),
              _mm512_shuffle_i32x4(eights[0], eights[1], 0xDD));
  }
};

}  // namespace
}  // namespace bakestone
