#include "kernels/math.h"

#include <cstdint>

namespace bakestone::math {
namespace {

uint64_t Bits(double x) { return __builtin_bit_cast(uint64_t, x); }
double FromBits(uint64_t bits) { return __builtin_bit_cast(double, bits); }

// ln 2 with its upper part short enough that n * kLn2A is exact for |n| < 2^20.
constexpr double kLn2A = 6.93147180369123816490e-01, kLn2B = 1.90821492927058770002e-10;

// Taylor coefficients; the last term is below 2^-54 of the result on [-pi / 4, pi / 4].
double SinReduced(double r) {
  constexpr double kC[] = {-1.0 / 6,        1.0 / 120,        -1.0 / 5040,         1.0 / 362880,
                           -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000};
  const double z = r * r;
  double p = kC[6];
  for (int i = 5; i >= 0; --i) p = p * z + kC[i];
  return r + r * (z * p);
}

double CosReduced(double r) {
  constexpr double kC[] = {
      -1.0 / 2,       1.0 / 24,        -1.0 / 720,         1.0 / 40320,
      -1.0 / 3628800, 1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000};
  const double z = r * r;
  double p = kC[7];
  for (int i = 6; i >= 0; --i) p = p * z + kC[i];
  return 1 + z * p;
}

struct Reduced {
  double r;
  uint32_t quadrant;
};

// x - n pi / 2 with pi / 2 in three parts of 26, 26 and 53 bits: n of up to 27 bits times a part is
// exact, and so is the first subtraction.
Reduced Reduce(double x) {
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kRound64 = 6755399441055744.0;  // 1.5 * 2^52
  constexpr double kA = 0x1.921fb54p+0, kB = 0x1.10b4610p-30, kC = 0x1.a62633145c06ep-58;
  const double n = (x * kTwoOverPi + kRound64) - kRound64;
  const double r = ((x - n * kA) - n * kB) - n * kC;
  return {r, static_cast<uint32_t>(static_cast<int64_t>(n)) & 3};
}

}  // namespace

double Sin(double x) noexcept {
  const auto [r, quadrant] = Reduce(x);
  const double value = quadrant % 2 == 0 ? SinReduced(r) : CosReduced(r);
  return quadrant >= 2 ? -value : value;
}

double Cos(double x) noexcept {
  const auto [r, quadrant] = Reduce(x);
  const double value = quadrant % 2 == 0 ? CosReduced(r) : SinReduced(r);
  return quadrant == 1 || quadrant == 2 ? -value : value;
}

double Exp64(double x) noexcept {
  constexpr double kRound64 = 6755399441055744.0;
  const double n = (x * 1.44269504088896338700 + kRound64) - kRound64;
  const double r = (x - n * kLn2A) - n * kLn2B;
  double p = 1;
  for (int i = 14; i >= 2; --i) p = 1 + p * r / i;  // (exp(r) - 1) / r, nested
  const double e = 1 + r * p;
  return e * FromBits(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

double Log(double x) noexcept {
  int64_t exponent = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    exponent = -54;
  }
  const uint64_t bits = Bits(x);
  exponent += static_cast<int64_t>(bits >> 52) - 1023;
  double m = FromBits((bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u);
  if (m > 1.41421356237309504880) {
    m *= 0.5;
    ++exponent;
  }
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.172: s^23 is below 2^-58 of it
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 1.0 / 23;
  for (int i = 21; i >= 3; i -= 2) p = p * z + 1.0 / i;
  const double n = static_cast<double>(exponent);
  return n * kLn2A + (2 * s + (2 * s * (z * p) + n * kLn2B));
}

double Pow(double base, double exponent) noexcept { return Exp64(exponent * Log(base)); }

}  // namespace bakestone::math
