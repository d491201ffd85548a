// The vector class of the AVX-512 training units: 16 floats in one register. Units with AVX512_BF16
// round by its instruction, which takes values below the smallest normal for zero. Include inside
// the unit's anonymous namespace.

struct V {
  using F = __m512;

  [[gnu::always_inline]] static __mmask16 Mask(int64_t left) {
    return left >= 16 ? __mmask16{0xFFFF} : static_cast<__mmask16>((1u << left) - 1);
  }
  [[gnu::always_inline]] static F Zero() { return _mm512_setzero_ps(); }
  [[gnu::always_inline]] static F Set(float x) { return _mm512_set1_ps(x); }
  [[gnu::always_inline]] static F Load(const float* p, int64_t left) {
    return left >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(Mask(left), p);
  }
  [[gnu::always_inline]] static F LoadOr(const float* p, int64_t left, float absent) {
    return left >= 16 ? _mm512_loadu_ps(p) : _mm512_mask_loadu_ps(Set(absent), Mask(left), p);
  }
  [[gnu::always_inline]] static void Store(float* p, F x, int64_t left) {
    if (left >= 16) {
      _mm512_storeu_ps(p, x);
    } else {
      _mm512_mask_storeu_ps(p, Mask(left), x);
    }
  }
  [[gnu::always_inline]] static __m256i Load16(const uint16_t* p, int64_t left) {
    return left >= 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
                      : _mm256_maskz_loadu_epi16(Mask(left), p);
  }
  // Nearest even; NaN stays NaN because its payload's upper bit is set before rounding.
  [[gnu::always_inline]] static __m512i RoundBits(F x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
    return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
  }
  [[gnu::always_inline]] static __m256i ExactHalves(F x) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(RoundBits(x), 16));
  }
  [[gnu::always_inline]] static __m256i Halves(F x) {
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    return ExactHalves(x);
#endif
  }
  [[gnu::always_inline]] static F Widened(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  [[gnu::always_inline]] static F LoadBf16(const uint16_t* p, int64_t left) {
    return Widened(Load16(p, left));
  }
  [[gnu::always_inline]] static F RoundBf16(F x) { return Widened(Halves(x)); }
  [[gnu::always_inline]] static void StoreHalves(uint16_t* p, __m256i halves, int64_t left) {
    if (left >= 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
    } else {
      _mm256_mask_storeu_epi16(p, Mask(left), halves);
    }
  }
  [[gnu::always_inline]] static void StoreBf16(uint16_t* p, F x, int64_t left) {
    StoreHalves(p, Halves(x), left);
  }
  // What is published is rounded so: also the smallest values.
  [[gnu::always_inline]] static void StoreExact(uint16_t* p, F x, int64_t left) {
    StoreHalves(p, ExactHalves(x), left);
  }
  // A panel's 16 pairs as two vectors of floats.
  [[gnu::always_inline]] static void Widen(const uint16_t* pairs, F* even, F* odd) {
    const __m512i both = _mm512_loadu_si512(pairs);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    *odd = _mm512_castsi512_ps(
        _mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
  // lo[i] and hi[i] side by side; a null row is zero.
  [[gnu::always_inline]] static __m512i Pairs(const uint16_t* lo, const uint16_t* hi,
                                              int64_t left) {
    const __m512i low =
        lo == nullptr ? _mm512_setzero_si512() : _mm512_cvtepu16_epi32(Load16(lo, left));
    const __m512i high =
        hi == nullptr ? _mm512_setzero_si512() : _mm512_cvtepu16_epi32(Load16(hi, left));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
  [[gnu::always_inline]] static void StorePairs(uint16_t* out, const uint16_t* lo,
                                                const uint16_t* hi, int64_t left) {
    _mm512_storeu_si512(out, Pairs(lo, hi, left));
  }

  [[gnu::always_inline]] static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  [[gnu::always_inline]] static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  [[gnu::always_inline]] static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  [[gnu::always_inline]] static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  [[gnu::always_inline]] static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  [[gnu::always_inline]] static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  [[gnu::always_inline]] static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  [[gnu::always_inline]] static F Sqrt(F a) { return _mm512_sqrt_ps(a); }
  [[gnu::always_inline]] static F Round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  [[gnu::always_inline]] static F Pow2(F n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }
  [[gnu::always_inline]] static F ZeroWhereLess(F x, F a, F b) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), x);
  }
  [[gnu::always_inline]] static float Sum(F x) { return _mm512_reduce_add_ps(x); }
  [[gnu::always_inline]] static float MaxAcross(F x) { return _mm512_reduce_max_ps(x); }

  // 16 rows of 16 words of 32 bits -> their transpose, dense.
  static void Transpose16(const uint16_t* x, int64_t stride, uint16_t* out) noexcept {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(x + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
      a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
      a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
      a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    // a[4 g + j] holds in its 128-bit part q the column 4 q + j of rows 4 g to 4 g + 3.
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i low01 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x44);
      const __m512i high01 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xEE);
      const __m512i low23 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x44);
      const __m512i high23 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xEE);
      _mm512_storeu_si512(out + (0 + j) * 32, _mm512_shuffle_i32x4(low01, low23, 0x88));
      _mm512_storeu_si512(out + (4 + j) * 32, _mm512_shuffle_i32x4(low01, low23, 0xDD));
      _mm512_storeu_si512(out + (8 + j) * 32, _mm512_shuffle_i32x4(high01, high23, 0x88));
      _mm512_storeu_si512(out + (12 + j) * 32, _mm512_shuffle_i32x4(high01, high23, 0xDD));
    }
  }

  // 8 x 8 words of 64 bits, each with its middle halves swapped, transposed.
  static void TransposeBlock(const uint16_t* in, uint16_t* out) noexcept {
    const __m512i swap =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m512i a[8], b[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      a[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(in + i * 32), swap);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      b[i] = _mm512_unpacklo_epi64(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 1]);
    }
    // b[2 g + j] holds in its part q the column 2 q + j of rows 2 g and 2 g + 1.
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512i low01 = _mm512_shuffle_i32x4(b[j], b[2 + j], 0x44);
      const __m512i high01 = _mm512_shuffle_i32x4(b[j], b[2 + j], 0xEE);
      const __m512i low23 = _mm512_shuffle_i32x4(b[4 + j], b[6 + j], 0x44);
      const __m512i high23 = _mm512_shuffle_i32x4(b[4 + j], b[6 + j], 0xEE);
      _mm512_storeu_si512(out + (0 + j) * 32, _mm512_shuffle_i32x4(low01, low23, 0x88));
      _mm512_storeu_si512(out + (2 + j) * 32, _mm512_shuffle_i32x4(low01, low23, 0xDD));
      _mm512_storeu_si512(out + (4 + j) * 32, _mm512_shuffle_i32x4(high01, high23, 0x88));
      _mm512_storeu_si512(out + (6 + j) * 32, _mm512_shuffle_i32x4(high01, high23, 0xDD));
    }
  }
};
