// The gated delta rule of a step and RWKV-7's, over the heads of its runs. A head's state goes
// through the rows of its run in order; heads and runs are shared between threads.
#pragma once

#include <cstdint>
#include <span>

#include "ops/context.h"
#include "tensor/matrix_view.h"

namespace bakestone::ops {

struct DeltaRuleShape {
  int64_t key_heads, value_heads;  // a multiple of key_heads
  int64_t key_dim, value_dim;
  bool
      tiled;  // head h of values has head h % key_heads of keys; else h / (value_heads / key_heads)
};

// Rows of one sequence, and the states of its heads [value_heads, key_dim, value_dim] before and
// after them.
struct DeltaRun {
  Range rows;
  const float* before;
  float* after;
};

// qkv [T, 2 * key_heads * key_dim + value_heads * value_dim], decay and rate [T, value_heads],
// out [T, value_heads * value_dim]. kernels/kernel_table.h has the formula.
void DeltaRule(Context& context, const DeltaRuleShape& shape, std::span<const DeltaRun> runs,
               MatrixView<const float> qkv, MatrixView<const float> decay,
               MatrixView<const float> rate, MatrixView<float> out);

// RWKV-7's rule the same way: every part [T, heads * dim], with one stride; states [heads, dim,
// dim].
struct RwkvParts {
  MatrixView<const float> r, decay, k, v, removal, rate;
};
void RwkvRule(Context& context, int64_t dim, std::span<const DeltaRun> runs, const RwkvParts& rows,
              MatrixView<float> out);

}  // namespace bakestone::ops
