#include "engine/portable_math.h"

#include <bit>
#include <cstdint>

namespace bakestone {
namespace {

// ln 2 in two parts: n * kLn2High is exact for |n| < 2^20 (its low 21 bits are zero).
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kSmallest =
    -708;  // e^-708 is the last one that is not denormal with room to spare

}  // namespace

double PortableExp(double x) noexcept {
  if (!(x >= kSmallest)) return x < kSmallest ? 0.0 : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor series: the first term left out, r^14 /
  // 14!, is below 5e-18.
  const auto n = static_cast<int64_t>(x * kLog2E - 0.5);  // x <= 0: rounds to nearest
  const double r = (x - static_cast<double>(n) * kLn2High) - static_cast<double>(n) * kLn2Low;
  double sum = 1.0;
  for (int k = 13; k >= 1; --k) sum = 1.0 + sum * r / k;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52);
}

double PortableLog(double x) noexcept {
  // x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <
  // 0.1716:
  // the first term left out, 2 s^25 / 25, is below 1e-20.
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  auto e = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffULL) | (uint64_t{1023} << 52));
  if (m > 0x1.6a09e667f3bcdp+0) {
    m *= 0.5;
    ++e;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 0.0;
  for (int k = 23; k >= 1; k -= 2) sum = 1.0 / k + sum * s2;
  const double n = static_cast<double>(e);
  return n * kLn2High + (2.0 * s * sum + n * kLn2Low);
}

}  // namespace bakestone
