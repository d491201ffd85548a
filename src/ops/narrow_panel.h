// The first matrix of a LoRA pair, [rank, in] in bf16: strips of 16 rows as in a panel (kBF16), but
// the last one holds no more rows than there are, rounded up to 4. Adapters of one row each are
// read from memory once a step, and half of a panel of rank 8 would be zeros. A strip is made whole
// in scratch before a kernel reads it.
//
// Magnitudes below 2^-50 are zeros: that is how products take bf16 (docs/numerics.md), and kernels
// need not look.
//
//   whole strips  [n / 16][ceil(k / 2)][16][2]
//   the others    [ceil(k / 2)][lanes][2], lanes = n % 16 rounded up to 4; padded to 64 bytes
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "tensor/matrix_view.h"

namespace bakestone::ops {

struct NarrowPanel {
  const uint8_t* data = nullptr;  // aligned to 64
  int64_t n = 0, k = 0;

  int64_t whole_rows() const noexcept { return n / kStripRows * kStripRows; }
  bool has_narrow() const noexcept { return n % kStripRows != 0; }
  // The strips that are as a panel's; n is 0 where there are none.
  Panel whole() const noexcept { return {data, whole_rows(), k, PanelType::kBF16, true}; }
};

// rows: bf16 [n, k], no padding; to: PanelBytes, aligned to 64. What kernels read of `rows`:
// flushed.
Panel PackFlushed(MatrixView<const uint16_t> rows, uint8_t* to);

int64_t NarrowPanelBytes(int64_t n, int64_t k);

// rows: bf16 [n, k], no padding; to: NarrowPanelBytes, aligned to 64.
NarrowPanel PackNarrow(MatrixView<const uint16_t> rows, uint8_t* to);

// The last strip, where it is narrow, as a panel in `room`: StripBytes(kBF16, k), aligned to 64.
Panel Widen(const NarrowPanel& panel, uint8_t* room);

}  // namespace bakestone::ops
