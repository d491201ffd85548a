// Training kernels for AVX2 with FMA: the 16 lanes of the shared code are two registers.
#include <immintrin.h>

#include <cstdint>

#include "kernels/math.h"
#include "kernels/train_kernels.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr int kOuterRows = 8;
#include "kernels/cpu/train_gemm.inl.h"
#include "kernels/cpu/train_pack.inl.h"
constexpr int kStateVectors = 2;
#include "kernels/cpu/train_rows.inl.h"

struct Two {
  __m256 a, b;
};

struct V {
  using F = Two;

  [[gnu::always_inline]] static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  [[gnu::always_inline]] static F Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  [[gnu::always_inline]] static F LoadAll(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  [[gnu::always_inline]] static F LoadOr(const float* p, int64_t left, float absent) {
    if (left >= 16) return LoadAll(p);
    alignas(32) float part[16];
    for (int i = 0; i < 16; ++i) part[i] = i < left ? p[i] : absent;
    return LoadAll(part);
  }
  [[gnu::always_inline]] static F Load(const float* p, int64_t left) { return LoadOr(p, left, 0); }
  [[gnu::always_inline]] static void Store(float* p, F x, int64_t left) {
    if (left >= 16) {
      _mm256_storeu_ps(p, x.a);
      _mm256_storeu_ps(p + 8, x.b);
      return;
    }
    alignas(32) float part[16];
    _mm256_store_ps(part, x.a);
    _mm256_store_ps(part + 8, x.b);
    for (int i = 0; i < left; ++i) p[i] = part[i];
  }
  [[gnu::always_inline]] static __m256i Load16(const uint16_t* p, int64_t left) {
    if (left >= 16) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    alignas(32) uint16_t part[16];
    for (int i = 0; i < 16; ++i) part[i] = i < left ? p[i] : uint16_t{0};
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(part));
  }
  [[gnu::always_inline]] static __m256i Low(__m256i x) {
    return _mm256_cvtepu16_epi32(_mm256_castsi256_si128(x));
  }
  [[gnu::always_inline]] static __m256i High(__m256i x) {
    return _mm256_cvtepu16_epi32(_mm256_extracti128_si256(x, 1));
  }
  [[gnu::always_inline]] static F LoadBf16(const uint16_t* p, int64_t left) {
    const __m256i x = Load16(p, left);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(Low(x), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(High(x), 16))};
  }
  // Nearest even; NaN stays NaN because its payload's upper bit is set instead of rounding.
  [[gnu::always_inline]] static __m256i RoundBits(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  }
  [[gnu::always_inline]] static F RoundBf16(F x) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(RoundBits(x.a), upper)),
            _mm256_castsi256_ps(_mm256_and_si256(RoundBits(x.b), upper))};
  }
  [[gnu::always_inline]] static void StoreExact(uint16_t* p, F x, int64_t left) {
    StoreBf16(p, x, left);
  }
  [[gnu::always_inline]] static void StoreBf16(uint16_t* p, F x, int64_t left) {
    const __m256i a = _mm256_srli_epi32(RoundBits(x.a), 16);
    const __m256i b = _mm256_srli_epi32(RoundBits(x.b), 16);
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
    if (left >= 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), both);
      return;
    }
    alignas(32) uint16_t part[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(part), both);
    for (int i = 0; i < left; ++i) p[i] = part[i];
  }
  [[gnu::always_inline]] static void Widen(const uint16_t* pairs, F* even, F* odd) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs + 16));
    *even = {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
             _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
    *odd = {_mm256_castsi256_ps(_mm256_and_si256(a, upper)),
            _mm256_castsi256_ps(_mm256_and_si256(b, upper))};
  }
  // lo[i] and hi[i] side by side; a null row is zero.
  static void StorePairs(uint16_t* out, const uint16_t* lo, const uint16_t* hi,
                         int64_t left) noexcept {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = lo == nullptr ? zero : Load16(lo, left);
    const __m256i high = hi == nullptr ? zero : Load16(hi, left);
    __m256i* to = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(to, _mm256_or_si256(Low(low), _mm256_slli_epi32(Low(high), 16)));
    _mm256_storeu_si256(to + 1, _mm256_or_si256(High(low), _mm256_slli_epi32(High(high), 16)));
  }

  [[gnu::always_inline]] static F Add(F x, F y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
  }
  [[gnu::always_inline]] static F Sub(F x, F y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
  }
  [[gnu::always_inline]] static F Mul(F x, F y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  [[gnu::always_inline]] static F Div(F x, F y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
  }
  [[gnu::always_inline]] static F Fma(F x, F y, F z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  [[gnu::always_inline]] static F Max(F x, F y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
  }
  [[gnu::always_inline]] static F Min(F x, F y) {
    return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
  }
  [[gnu::always_inline]] static F Sqrt(F x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
  [[gnu::always_inline]] static F Round(F x) {
    constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
  }
  [[gnu::always_inline]] static __m256 Pow2Half(__m256 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  [[gnu::always_inline]] static F Pow2(F n) { return {Pow2Half(n.a), Pow2Half(n.b)}; }
  [[gnu::always_inline]] static F ZeroWhereLess(F x, F y, F z) {
    return {_mm256_and_ps(_mm256_cmp_ps(y.a, z.a, _CMP_NLT_UQ), x.a),
            _mm256_and_ps(_mm256_cmp_ps(y.b, z.b, _CMP_NLT_UQ), x.b)};
  }
  [[gnu::always_inline]] static float Sum(F x) {
    const __m256 s = _mm256_add_ps(x.a, x.b);
    const __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(u, _mm_shuffle_ps(u, u, 1)));
  }
  [[gnu::always_inline]] static float MaxAcross(F x) {
    const __m256 s = _mm256_max_ps(x.a, x.b);
    const __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 u = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(u, _mm_shuffle_ps(u, u, 1)));
  }

  static void Transpose16(const uint16_t* x, int64_t stride, uint16_t* out) noexcept {
    PackLanesSlowly(x, stride, kTrainLanes, 2 * kTrainLanes, 0, kTrainLanes, out);
  }
  static void TransposeBlock(const uint16_t* in, uint16_t* out) noexcept {
    for (int row = 0; row < 8; ++row) {
      for (int col = 0; col < 8; ++col) {
        const uint16_t* from = in + (row * 8 + col) * 4;
        uint16_t* to = out + (col * 8 + row) * 4;
        to[0] = from[0];
        to[1] = from[2];
        to[2] = from[1];
        to[3] = from[3];
      }
    }
  }
};

constexpr TrainKernels Make() {
  TrainKernels kernels = MakeTrainKernels<V>();
  kernels.gemm = Gemm<V, FmaProduct<V, 4>>;
  kernels.outer = Outer<V, FmaProduct<V, 4>>;
  return kernels;
}

}  // namespace

constinit const TrainKernels kTrainAvx2 = Make();

}  // namespace bakestone
