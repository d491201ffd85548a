#include "kernels/math.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace bakestone::math {
namespace {

// |value - exact| in units of the last place of a binary32 (or binary64) near exact.
template <class T>
double Ulps(T value, long double exact) {
  const long double magnitude = std::fabs(exact);
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int digits = std::numeric_limits<T>::digits;
  const int lowest = std::numeric_limits<T>::min_exponent;
  const long double ulp = std::ldexp(1.0L, std::max(exponent, lowest) - digits);
  return static_cast<double>(std::fabs(static_cast<long double>(value) - exact) / ulp);
}

TEST(Exp, IsWithinOneUlp) {
  double worst = 0;
  for (float x = -103.0f; x < 88.7f; x += 0.00037f) {
    worst = std::max(worst, Ulps(Exp(x), std::exp(static_cast<long double>(x))));
  }
  EXPECT_LT(worst, 1.0);
}

TEST(Exp, LimitsAreZeroAndInfinity) {
  EXPECT_EQ(Exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(Exp(-105.0f), 0.0f);
  EXPECT_EQ(Exp(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
}

TEST(ErfGelu, IsWithinTheStatedErrorOfItself) {
  double worst = 0;
  for (float x = -9; x < 9; x += 0.00037f) {
    const auto exact = 0.5L * static_cast<long double>(x) *
                       std::erfc(-static_cast<long double>(x) / std::sqrt(2.0L));
    const long double error = std::fabs(static_cast<long double>(ErfGelu(x)) - exact);
    worst = std::max(worst, static_cast<double>(error / std::fabs(exact)));
  }
  EXPECT_LT(worst, 2.5e-6);
  EXPECT_EQ(ErfGelu(0.0f), 0.0f);
  EXPECT_EQ(ErfGelu(40.0f), 40.0f);
  EXPECT_EQ(ErfGelu(-40.0f), 0.0f);
}

// Vector tables compare x with the constants instead of the result with 2^-50.
TEST(Exp, IsVisibleExactlyFromTheStatedArguments) {
  constexpr float kTiny = 0x1p-50f,
                  kRoundsToTiny = kTiny * (1 - 0x1p-9f);  // a tie goes to the even 2^-50
  for (float x = -36; x < -34; x = std::nextafter(x, 0.0f)) {
    ASSERT_EQ(Exp(x) >= kTiny, x >= kExpVisible) << x;
    ASSERT_EQ(Exp(x) >= kRoundsToTiny, x >= kExpVisibleBF16) << x;
  }
}

TEST(SinCos, AreWithinFourUlpUpToMillions) {
  double worst = 0;
  for (double x = 0; x < 1.1e6; x += 1.7321 + x * 1e-5) {
    worst = std::max({worst, Ulps(Sin(x), std::sin(static_cast<long double>(x))),
                      Ulps(Cos(x), std::cos(static_cast<long double>(x))),
                      Ulps(Sin(-x), std::sin(static_cast<long double>(-x)))});
  }
  EXPECT_LT(worst, 4.0);
}

TEST(SinCos, AreWithinTwoUlpNearZero) {
  double worst = 0;
  for (double x = -4; x < 4; x += 0.0001237) {
    // near multiples of pi / 2 the result itself is what rounding left: compare absolutely
    worst = std::max({worst, std::fabs(Sin(x) - std::sin(x)), std::fabs(Cos(x) - std::cos(x))});
  }
  EXPECT_LT(worst, 3e-16);
}

TEST(Log, IsWithinFourUlp) {
  double worst = 0;
  for (double x = 1e-300; x < 1e300; x *= 1.00321) {
    worst = std::max(worst, Ulps(Log(x), std::log(static_cast<long double>(x))));
  }
  for (double x = 0.5; x < 2; x += 0.000137) {
    worst = std::max(worst, Ulps(Log(x), std::log(static_cast<long double>(x))));
  }
  EXPECT_LT(worst, 4.0);
  EXPECT_EQ(Log(1.0), 0.0);
}

TEST(Exp64, IsWithinFourUlp) {
  double worst = 0;
  for (double x = -700; x < 700; x += 0.01237) {
    worst = std::max(worst, Ulps(Exp64(x), std::exp(static_cast<long double>(x))));
  }
  EXPECT_LT(worst, 4.0);
}

TEST(Pow, GivesRotaryFrequencies) {
  for (int i = 0; i < 64; ++i) {
    const long double exact = std::pow(500000.0L, -static_cast<long double>(i) / 64);
    EXPECT_LT(std::fabs(static_cast<double>(Pow(500000.0, -i / 64.0) / exact - 1)), 5e-15) << i;
  }
}

}  // namespace
}  // namespace bakestone::math
