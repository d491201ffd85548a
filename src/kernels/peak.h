// What the inner loops of each kernel table could do at best: its dot products of int8 and of bf16
// and its float multiply-add on operands in L1, over as many sums as the matrix products keep in
// registers. The ceilings of a roofline (ops/peaks.h measures them); nothing is computed with them.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace bakestone {

// Each runs `rounds` rounds on kPeakOperandBytes of any bytes (the second half: floats), aligned to
// 64, and returns how many multiply-adds that was. result [16]: so that nothing is left out.
inline constexpr int64_t kPeakOperandBytes = 8192;
struct PeakKernels {
  int64_t (*int8_dot)(int64_t rounds, const uint8_t* operands, float* result) noexcept;
  int64_t (*float_fma)(int64_t rounds, const uint8_t* operands, float* result) noexcept;
  decltype(float_fma) bf16_dot = nullptr;  // null: bf16 is multiplied by float_fma
};

// Of a table that this machine can run. A table without loops of its own has those of the widest
// vectors.
const PeakKernels& PeakKernelsOf(Isa isa);

extern const PeakKernels kPeakReference;
#if defined(__x86_64__)
extern const PeakKernels kPeakAvx2, kPeakAvxVnni, kPeakAvx512, kPeakAvx512Dots, kPeakAmx;
#elif defined(__aarch64__)
extern const PeakKernels kPeakNeon;
#endif

}  // namespace bakestone
