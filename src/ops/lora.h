// The products of LoRA adapters, each on its rows of a step: y += scale * B (A x).
#pragma once

#include <cstdint>
#include <span>

#include "ops/context.h"
#include "ops/narrow_panel.h"
#include "ops/quantized_rows.h"
#include "tensor/matrix_view.h"

namespace bakestone::ops {

// A LoRA pair in bf16: a [r, in], b [out, r].
struct LoraPanels {
  NarrowPanel a;
  Panel b{};  // kBF16
  float scale = 0;
};

// Rows [begin, begin + y.rows) of x and what they are added to: y [rows, out], its row 0 being row
// `begin`.
struct LoraRun {
  LoraPanels lora;
  int64_t begin;
  MatrixView<float> y;
};

ActType LoraActType(Precision precision);

// All runs together; no two of them add to the same numbers. x must have the form
// LoraActType(precision). A NaN or infinity between the two products throws kInternal.
void Lora(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
          Precision precision);

}  // namespace bakestone::ops
