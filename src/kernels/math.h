// The functions that the forward path needs, our own so that every machine computes the same bits:
// no libm. Plain IEEE operations and explicit fused multiply-adds in a fixed order.
//
//   Exp    binary32; error below 1 ulp (math_test.cc); 0 below -104, infinity above 89. Vector
//          tables repeat its steps with the constants below.
//   Log, Exp64, Sin, Cos, Pow   binary64; relative error below 4 ulp on the ranges the tests state;
//          Sin and Cos for |x| <= 2^26
#pragma once

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone::math {

// exp(x) = 2^n exp(r), n = rint(x / ln 2), r = x - n ln 2 in two steps (the first exact),
// exp(r) = 1 + (r + r^2 P(r)), P the Chebyshev interpolant of (exp(r) - 1 - r) / r^2 of degree 5 on
// [-ln 2 / 2, ln 2 / 2] (relative error 0.02 ulp); 2^n in two factors, so that denormals round
// once.
constexpr float kExpMax = 90.0f, kExpMin = -110.0f;
constexpr float kLog2E = 1.44269504f;
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kExpP[6] = {0x1p-1f,        0x1.555556p-3f,  0x1.5554eap-5f,
                            0x1.1110c6p-7f, 0x1.6d431ap-10f, 0x1.a1516ep-13f};

// The least x for which Exp(x) is at least 2^-50, and that for which it is after rounding to bf16:
// where attention begins to see a probability. Exp rises steadily there (math_test.cc).
constexpr float kExpVisible = -0x1.154244p+5f, kExpVisibleBF16 = -0x1.154646p+5f;

// x is not NaN.
BAKESTONE_INLINE float Exp(float x) {
  x = x < kExpMax ? x : kExpMax;
  x = x > kExpMin ? x : kExpMin;
  const float n = __builtin_fmaf(x, kLog2E, kRound) - kRound;
  const float r = __builtin_fmaf(n, -kLn2Low, __builtin_fmaf(n, -kLn2High, x));
  float p = kExpP[5];
  for (int i = 4; i >= 0; --i) p = __builtin_fmaf(p, r, kExpP[i]);
  const float e = __builtin_fmaf(p, r * r, r) + 1.0f;
  const int32_t k = static_cast<int32_t>(n), half = k >> 1;
  const float a = __builtin_bit_cast(float, (half + 127) << 23);
  const float b = __builtin_bit_cast(float, (k - half + 127) << 23);
  return e * a * b;
}

BAKESTONE_INLINE float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

// gelu(x) = x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))), which is its tanh form.
constexpr float kGeluCubic = 0.044715f, kGeluRate = -1.59576912f;

// (u + 1) g / (1 + exp(-1.702 g)), g = min(gate, 7), u = up within [-7, 7].
constexpr float kClampedLimit = 7, kClampedRate = -1.702f;

// GELU by erf: gelu(x) = x * tail for x < 0, else x * (1 - tail), where tail = erfc(t /
// sqrt(2)) / 2 = exp(-t^2 / 2) Q(v) with t = |x| and v = 1 / (1 + t / 4). Q fits erfcx(t / sqrt(2))
// / 2 for t up to 14 within 1.5e-8 of itself (weighted least squares, iterated towards the least
// greatest error). math_test.cc has the error.
constexpr int kTailDegree = 9;
constexpr float kTailQ[kTailDegree + 1] = {
    -2.160041e-05f, 1.00229e-01f,   9.4820194e-02f, 1.2156824e-01f,  -2.0384992e-02f,
    3.0448875e-01f, -3.334717e-01f, 3.9500338e-01f, -1.9617821e-01f, 3.3946898e-02f};

BAKESTONE_INLINE float ErfGelu(float x) {
  const float t = x < 0 ? -x : x;
  const float v = 1.0f / __builtin_fmaf(t, 0.25f, 1.0f);
  float q = kTailQ[kTailDegree];
  for (int i = kTailDegree - 1; i >= 0; --i) q = __builtin_fmaf(q, v, kTailQ[i]);
  const float tail = Exp(t * -0.5f * t) * q;
  return x * (x < 0 ? tail : 1.0f - tail);
}

// ---- Doubles: rotary tables and final logarithms, never in an inner loop ----

double Log(double x) noexcept;    // finite x > 0
double Exp64(double x) noexcept;  // |x| <= 700
double Sin(double x) noexcept;    // |x| <= 2^26
double Cos(double x) noexcept;
double Pow(double base, double exponent) noexcept;  // base > 0

// log(1 + exp(x)).
BAKESTONE_INLINE float SoftPlus(float x) {
  if (x > 20) return x;
  return static_cast<float>(Log(1 + Exp64(static_cast<double>(x > -80.0f ? x : -80.0f))));
}

}  // namespace bakestone::math
