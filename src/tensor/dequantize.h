// Blocks to floats: the portable reference, equal bit for bit to the Python package `gguf`. Every
// faster decoder in kernels/ is tested against it. Integer types (I8..I64) and F64 convert to the
// nearest float. Pure; any thread.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace bakestone {

// Decodes n weights from `row` (RowBytes(type, n) bytes, any alignment) into out[0..n). The two do
// not overlap. n is a multiple of BlockSize(type), else kInvalidArgument.
void DequantizeRow(DType type, const void* row, float* out, int64_t n);

}  // namespace bakestone
