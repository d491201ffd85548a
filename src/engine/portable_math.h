// exp and log for sampling, the same bits on every machine: plain double additions, multiplications
// and divisions in a fixed order (the build turns contraction off), no libm.
#pragma once

namespace bakestone {

// e^x for x <= 0; relative error below 1e-15, 0 below -708 (never denormal). NaN gives NaN.
double PortableExp(double x) noexcept;

// Natural logarithm of a positive normal number; absolute error below 1e-15 * max(1, |log x|).
double PortableLog(double x) noexcept;

}  // namespace bakestone
