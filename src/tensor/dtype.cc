#include "tensor/dtype.h"

#include "base/checked.h"
#include "base/error.h"

namespace bakestone {

const char* DTypeName(DType type) {
  switch (type) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kQ4_0:
      return "Q4_0";
    case DType::kQ4_1:
      return "Q4_1";
    case DType::kQ5_0:
      return "Q5_0";
    case DType::kQ5_1:
      return "Q5_1";
    case DType::kQ8_0:
      return "Q8_0";
    case DType::kQ2_K:
      return "Q2_K";
    case DType::kQ3_K:
      return "Q3_K";
    case DType::kQ4_K:
      return "Q4_K";
    case DType::kQ5_K:
      return "Q5_K";
    case DType::kQ6_K:
      return "Q6_K";
    case DType::kIQ4_NL:
      return "IQ4_NL";
    case DType::kIQ4_XS:
      return "IQ4_XS";
    case DType::kI8:
      return "I8";
    case DType::kI16:
      return "I16";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kF64:
      return "F64";
    case DType::kBF16:
      return "BF16";
    case DType::kMXFP4:
      return "MXFP4";
  }
  return "?";
}

int64_t RowBytes(DType type, int64_t n) {
  const int64_t block = BlockSize(type);
  if (block == 0) {
    Throw(ErrorCode::kInvalidArgument, "expected a known element type, found number {}",
          static_cast<uint32_t>(type));
  }
  if (n < 0 || n % block != 0) {
    Throw(ErrorCode::kInvalidArgument,
          "a row of {}: expected a non-negative multiple of {} elements, found {}", DTypeName(type),
          block, n);
  }
  const auto bytes = CheckedMul<int64_t>(n / block, BlockBytes(type));
  if (!bytes) {
    Throw(ErrorCode::kInvalidArgument, "a row of {} {} elements does not fit in memory", n,
          DTypeName(type));
  }
  return *bytes;
}

}  // namespace bakestone
