// GELU by the error function, as encoders have it: pure.
#pragma once

#include <algorithm>

#include "kernels/math.h"

namespace bakestone {

// Abramowitz and Stegun 7.1.26, in binary64: within 1.5e-7.
inline double Erf(double x) {
  const double z = std::min(x < 0 ? -x : x, 6.0), t = 1 / (1 + 0.3275911 * z);
  const double p =
      t *
      (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const double y = 1 - p * math::Exp64(-z * z);
  return x < 0 ? -y : y;
}

inline double ErfGeluOf(double x) { return 0.5 * x * (1 + Erf(x * 0.70710678118654752)); }

}  // namespace bakestone
