#include "kernels/peak.h"

#include <cmath>

#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

int64_t PeakInt8(int64_t rounds, const uint8_t* operands, float* result) noexcept {
  int32_t sums[16] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    const uint8_t* w = operands + round % 32 * 64;
    for (int i = 0; i < 64; ++i) {
      sums[i / 4] += (w[i] & 15) * static_cast<int8_t>(operands[2048 + i]);
    }
  }
  for (int lane = 0; lane < 16; ++lane) result[lane] = static_cast<float>(sums[lane]);
  return rounds * 64;
}

int64_t PeakFloat(int64_t rounds, const uint8_t* operands, float* result) noexcept {
  const auto* a = reinterpret_cast<const float*>(operands + kPeakOperandBytes / 2);
  float sums[16] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    for (int lane = 0; lane < 16; ++lane) {
      sums[lane] = std::fma(0.5f, a[round % 32 * 16 + lane], sums[lane]);
    }
  }
  for (int lane = 0; lane < 16; ++lane) result[lane] = sums[lane];
  return rounds * 16;
}

}  // namespace

constexpr PeakKernels kPeakReference = {PeakInt8, PeakFloat};

const PeakKernels& PeakKernelsOf(Isa isa) {
  if (isa == Isa::kReference) return kPeakReference;
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx2:
      return kPeakAvx2;
    case Isa::kAvxVnni:
      return kPeakAvxVnni;
    case Isa::kAmx:
      return kPeakAmx;
    default:
      return DotsPay() ? kPeakAvx512Dots : kPeakAvx512;
  }
#elif defined(__aarch64__)
  return kPeakNeon;
#else
  return kPeakReference;
#endif
}

}  // namespace bakestone
