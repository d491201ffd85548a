// The packed form of a weight matrix [n, k]: what every kernel table reads. Rows go in strips of 16
// (n padded with zero rows), so that one vector lane owns one output and activations are broadcast.
//
// A strip is three planes one after another, each over all blocks of k, the strip padded to 64
//   bytes:
//   low   the quants, or their low bits. L below is [lane 16][4]: 64 bytes, four consecutive k a
//         lane. 8 bits: per 32 k, L(g), g = 0..7: byte (lane, i) is k = 4 g + i, biased by 128 to
//         unsigned 4 bits: per 32 k, L(j), j = 0..3: low nibble k = 4 j + i, high nibble k = 16 + 4
//         j + i 2 bits: per 32 k, L(v), v = 0..1: bits 2 s.. are k = 16 v + 4 s + i, s = 0..3
//         F32, F16: [k][16];  BF16: [k / 2][16][2]; k padded to even with zeros
//   high  upper bits. Q5_*, Q3_K: per 32 k one L: bit g is k = 4 g + i. Q6_K: two bits, as above
//   side  scales, per block, each [16] over lanes:
//         Q4_0, Q5_0, Q8_0, IQ4_NL: d f16;  Q4_1, Q5_1: d, m f16;  MXFP4: e u8
//         Q4_K, Q5_K: d, dmin f16, scale u8 [8], min u8 [8];  Q6_K: d f16, scale i8 [16]
//         Q2_K: d, dmin f16, scale | min << 4 u8 [16];  IQ4_XS: d f16, scale - 32 i8 [8]
//         Q3_K: d f16, the file's 12 bytes of scales [12]
// At most 3 % larger than the file's bytes for k >= 512 and n a multiple of 16.
#pragma once

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {

enum class PanelType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
};
inline constexpr int kNumPanelTypes = 16;
inline constexpr int64_t kStripRows = 16;
// Raised when the layout changes; keys any stored panel.
inline constexpr uint32_t kPanelVersion = 1;

struct Panel {
  const uint8_t* data;  // aligned to 64
  int64_t n, k;
  PanelType type;
  bool flushed = false;  // BF16: magnitudes below 2^-50 are zeros already; no kernel need look
};

// A narrow strip, of plain bf16, holds fewer lanes than 16: [ceil(k / 2)][lanes][2]. Rows that are
// missing in the last strip of 16, as lanes.
BAKESTONE_INLINE constexpr int64_t NarrowLanes(int64_t n) { return (n % kStripRows + 3) / 4 * 4; }

// Bytes of one block of a whole strip, by plane.
struct PanelShape {
  int32_t block;  // k per block: 2 (plain types), 32 or 256
  int32_t low, high, side;
};

BAKESTONE_INLINE constexpr PanelShape PanelShapeOf(PanelType type) {
  switch (type) {
    case PanelType::kF32:
      return {2, 128, 0, 0};
    case PanelType::kF16:
    case PanelType::kBF16:
      return {2, 64, 0, 0};
    case PanelType::kQ4_0:
    case PanelType::kIQ4_NL:
      return {32, 256, 0, 32};
    case PanelType::kQ4_1:
      return {32, 256, 0, 64};
    case PanelType::kQ5_0:
      return {32, 256, 64, 32};
    case PanelType::kQ5_1:
      return {32, 256, 64, 64};
    case PanelType::kQ8_0:
      return {32, 512, 0, 32};
    case PanelType::kMXFP4:
      return {32, 256, 0, 16};
    case PanelType::kQ2_K:
      return {256, 1024, 0, 320};
    case PanelType::kQ3_K:
      return {256, 1024, 512, 224};
    case PanelType::kQ4_K:
      return {256, 2048, 0, 320};
    case PanelType::kQ5_K:
      return {256, 2048, 512, 320};
    case PanelType::kQ6_K:
      return {256, 2048, 1024, 288};
    case PanelType::kIQ4_XS:
      return {256, 2048, 0, 160};
  }
  return {2, 0, 0, 0};
}

BAKESTONE_INLINE constexpr int64_t PanelBlocks(PanelType type, int64_t k) {
  const int64_t block = PanelShapeOf(type).block;
  return (k + block - 1) / block;
}

BAKESTONE_INLINE constexpr int64_t StripBytes(PanelType type, int64_t k) {
  const PanelShape s = PanelShapeOf(type);
  return (PanelBlocks(type, k) * (s.low + s.high + s.side) + 63) / 64 * 64;
}

BAKESTONE_INLINE constexpr int64_t NumStrips(int64_t n) {
  return (n + kStripRows - 1) / kStripRows;
}

BAKESTONE_INLINE constexpr int64_t PanelBytes(PanelType type, int64_t n, int64_t k) {
  return NumStrips(n) * StripBytes(type, k);
}

}  // namespace bakestone
