// From the rows of a GGUF tensor to panels (kernels/panel.h). Byte shuffling only, exact, shared by
// every table. Pure; any thread, disjoint strips in parallel (ops/linear.h does).
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/kernel_table.h"
#include "tensor/dtype.h"

namespace bakestone {

// Empty for types that no matrix has (integers, F64).
std::optional<PanelType> PanelTypeOf(DType type);
DType DiskTypeOf(PanelType type);

struct PackArgs {
  PanelType type;
  const uint8_t* rows;     // the tensor's bytes: n rows of RowBytes(DiskTypeOf(type), k)
  int64_t n, k;            // k a multiple of the type's block
  const int32_t* row_map;  // panel row i is file row row_map[i]; null: i
  uint8_t* panel;          // PanelBytes(type, n, k), aligned to 64
};

// Packs strips [begin, end) of NumStrips(n).
void PackStrips(const PackArgs& args, Range strips) noexcept;

}  // namespace bakestone
