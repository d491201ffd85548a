// Conversions between float and the 16-bit and 8-bit storage formats, bit-exact and the same on
// every machine: IEEE binary16, bfloat16 (the upper half of binary32) and E8M0 (an exponent only).
// To a narrower type they round to nearest, ties to even, and overflow to infinity; denormals are
// exact both ways. NaN stays NaN with its sign and upper payload bits, and becomes quiet, as F16C
// and Arm do.
//
// No standard library here and no weak symbols: kernels for a newer CPU include this header.
#pragma once

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {

BAKESTONE_INLINE constexpr uint32_t BitsOfFloat(float x) { return __builtin_bit_cast(uint32_t, x); }
BAKESTONE_INLINE constexpr float FloatOfBits(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

BAKESTONE_INLINE constexpr float F16ToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1Fu;
  const uint32_t fraction = h & 0x3FFu;
  if (exponent == 0x1F) {  // infinity, or a NaN made quiet
    return FloatOfBits(sign | 0x7F800000u | (fraction << 13) | (fraction != 0 ? 0x00400000u : 0u));
  }
  if (exponent == 0) {  // zero or denormal: fraction * 2^-24 is exact in binary32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return FloatOfBits(sign | BitsOfFloat(magnitude));
  }
  return FloatOfBits(sign | ((exponent + 112) << 23) | (fraction << 13));
}

BAKESTONE_INLINE constexpr uint16_t FloatToF16(float x) {
  const uint32_t bits = BitsOfFloat(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  }
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // >= 65520
  if (magnitude < 0x38800000u) {  // below 2^-14: the result is denormal, in units of 2^-24
    if (magnitude < 0x33000000u) return static_cast<uint16_t>(sign);  // below 2^-25
    const uint32_t shift = 126 - (magnitude >> 23);                   // 14 to 24
    const uint32_t fraction = (magnitude & 0x007FFFFFu) | 0x00800000u;
    const uint32_t kept = fraction >> shift;
    const uint32_t rest = fraction & ((1u << shift) - 1), half = 1u << (shift - 1);
    const uint32_t up = (rest > half || (rest == half && (kept & 1u) != 0)) ? 1u : 0u;
    return static_cast<uint16_t>(sign | (kept + up));
  }
  const uint32_t rebased = magnitude - (112u << 23);
  const uint32_t rounded = rebased + 0x0FFFu + ((rebased >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

BAKESTONE_INLINE constexpr float BF16ToFloat(uint16_t b) {
  return FloatOfBits(static_cast<uint32_t>(b) << 16);
}

BAKESTONE_INLINE constexpr uint16_t FloatToBF16(float x) {
  const uint32_t bits = BitsOfFloat(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// Half of 2^(e - 127): MXFP4 keeps its codebook doubled, so its scale is halved. 0 and 1 give the
// denormals 2^-128 and 2^-127; 255 gives 2^127 (NaN in the OCP text, but not in GGUF practice).
BAKESTONE_INLINE constexpr float E8M0ToFloatHalf(uint8_t e) {
  return FloatOfBits(e < 2 ? 0x00200000u << e : (static_cast<uint32_t>(e) - 1) << 23);
}

}  // namespace bakestone
