// Rows of f32, wherever they come from, to rows of another element type: what quantizing a tensor
// is. Split over the pool by rows; the bytes do not depend on the number of threads, nor on the
// kernel table.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tensor/dtype.h"

namespace bakestone::ops {

// Puts rows [row, row + count) into x [count, k]. Called from several threads at once; does not
// throw.
using RowSource = std::function<void(int64_t row, int64_t count, float* x)>;

struct EncodeJob {
  std::string_view name;  // for errors: "model.gguf: tensor 'output.weight'"
  DType to = DType::kF32;
  int64_t n = 0, k = 0;               // k a multiple of the type's block
  std::span<const float> importance;  // [k], above 0, or empty: all columns alike
  bool fast = false;                  // the fast search, which takes no importance
  uint8_t* out = nullptr;             // [n] rows of RowBytes(to, k); aligned to 2
};

// Throws kUnsupported where no matrix has the type `to`; kCorrupt for a NaN, an infinity, or a
// value that `to` cannot hold (f16 ends at 65,504, and blocks with an f16 scale are held to half of
// that).
void Encode(ThreadPool& pool, const KernelTable& kernels, const EncodeJob& job,
            const RowSource& source);

// The same bytes, packed (kernels/panel.h) and not kept as rows: `out` is PanelBytes of the type,
// aligned to 64. row_map: panel row i is the source's row row_map[i] ([n], or empty for none).
void EncodePacked(ThreadPool& pool, const KernelTable& kernels, const EncodeJob& job,
                  const RowSource& source, std::span<const int32_t> row_map = {});

// Rows of a tensor as it lies in a file; k a multiple of the type's block.
RowSource RowsOf(DType type, const uint8_t* rows, int64_t k);

}  // namespace bakestone::ops
