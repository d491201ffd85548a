// The input rows of matrix products in the forms that panels take (kernels/kernel_table.h,
// ActType).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernel_table.h"
#include "tensor/buffer.h"

namespace bakestone::ops {

// Rows [begin, begin + count) of x.
Activations RowsOf(const Activations& x, int64_t begin, int64_t count);

// One set of rows in one or more forms. Buffers are kept and grow; reuse it from layer to layer.
class QuantizedRows {
 public:
  // Forms [rows, k] for every type of `types`; forgets what it held.
  void Reset(std::span<const ActType> types, int64_t rows, int64_t k);
  int64_t rows() const noexcept { return rows_; }
  int64_t k() const noexcept { return k_; }
  bool has(ActType type) const noexcept { return present_[static_cast<int>(type)]; }
  const Activations& form(ActType type) const;
  // Rows [begin, begin + count) only: one adapter's segment of a step.
  Activations form(ActType type, int64_t begin, int64_t count) const;

 private:
  int64_t rows_ = 0, k_ = 0;
  bool present_[kNumActTypes] = {};
  Activations forms_[kNumActTypes] = {};
  Buffer<uint8_t> storage_[kNumActTypes];
};

}  // namespace bakestone::ops
