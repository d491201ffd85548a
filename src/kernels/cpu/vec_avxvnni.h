// vec_avx2.h with the byte dot products of the AVX-VNNI extension: clients from Alder Lake and Zen
// 5 on. AVX-512 has the same two instructions in its own encoding, so a machine with that can test
// this class.
#pragma once

#include "kernels/cpu/vec_avx2.h"

namespace bakestone {
namespace {

struct V256Vnni : V256 {
  static constexpr int kByteBias = 128;  // as vec_avx512.h

  BAKESTONE_INLINE static __m256i DotBytes(__m256i acc, __m256i w, __m256i a) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(acc, w, a);
#else
    return _mm256_dpbusd_epi32(acc, w, a);
#endif
  }
  BAKESTONE_INLINE static __m256i DotWords(__m256i acc, __m256i a, __m256i b) {
#if defined(__AVXVNNI__)
    return _mm256_dpwssd_avx_epi32(acc, a, b);
#else
    return _mm256_dpwssd_epi32(acc, a, b);
#endif
  }

  template <int kBits, int kSteps>
  BAKESTONE_INLINE static I Dot(I acc, const B* w, const int8_t* a) {
#pragma GCC unroll 8
    for (int i = 0; i < kSteps; ++i) {
      int32_t word;
      __builtin_memcpy(&word, a + 4 * i, 4);
      const __m256i x = _mm256_set1_epi32(word);
      acc.lo = DotBytes(acc.lo, w[i].lo, x);
      acc.hi = DotBytes(acc.hi, w[i].hi, x);
    }
    return acc;
  }
  BAKESTONE_INLINE static I DotPairs(I acc, I pairs, const int16_t* sums) {
    int32_t word;
    __builtin_memcpy(&word, sums, 4);
    const __m256i x = _mm256_set1_epi32(word);
    return {DotWords(acc.lo, pairs.lo, x), DotWords(acc.hi, pairs.hi, x)};
  }
};

}  // namespace
}  // namespace bakestone
