// The element types of tensors. A quantized type stores a row as blocks: `BlockSize` weights in
// `BlockBytes` bytes (blocks.h has the layouts). The numbers are the type ids that GGUF files hold,
// so a DType is read from and written to disk as it is: do not renumber.
//
// No standard containers here: kernels compiled for a newer CPU include this header, and it must
// leave no weak symbol in their objects (hence always_inline). Everything is pure; any thread may
// call it.
#pragma once

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {

enum class DType : uint32_t {  // on disk: do not renumber
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
  kMXFP4 = 39,
};

// Weights per block: 1 for plain types. 0 for a number that is no DType.
BAKESTONE_INLINE constexpr int64_t BlockSize(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kF64:
    case DType::kI8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
      return 1;
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
    case DType::kMXFP4:
      return 32;
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_XS:
      return 256;
  }
  return 0;
}

// Bytes per block. 0 for a number that is no DType.
BAKESTONE_INLINE constexpr int64_t BlockBytes(DType type) {
  switch (type) {
    case DType::kI8:
      return 1;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kQ4_0:
      return 18;
    case DType::kQ4_1:
      return 20;
    case DType::kQ5_0:
      return 22;
    case DType::kQ5_1:
      return 24;
    case DType::kQ8_0:
      return 34;
    case DType::kQ2_K:
      return 84;
    case DType::kQ3_K:
      return 110;
    case DType::kQ4_K:
      return 144;
    case DType::kQ5_K:
      return 176;
    case DType::kQ6_K:
      return 210;
    case DType::kIQ4_NL:
      return 18;
    case DType::kIQ4_XS:
      return 136;
    case DType::kMXFP4:
      return 17;
  }
  return 0;
}

BAKESTONE_INLINE constexpr bool IsQuantized(DType type) { return BlockSize(type) > 1; }

// "F32", "Q4_K", ... as the ecosystem writes it; "?" for a number that is no DType.
const char* DTypeName(DType type);

// True if `type` is one of the enumerators above; a number from a file is checked with this.
BAKESTONE_INLINE constexpr bool IsDType(uint32_t type) {
  return BlockSize(static_cast<DType>(type)) != 0;
}

// Bytes of a row of n weights. Throws kInvalidArgument when n is negative or no multiple of the
// block size, or when the product does not fit.
int64_t RowBytes(DType type, int64_t n);

}  // namespace bakestone
