#include "kernels/reference/reference.h"

namespace bakestone::reference {

void DeltaRule(const DeltaRuleArgs& args, Range rows) noexcept {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const float *q = args.q + row * args.stride, *k = args.k + row * args.stride,
                *v = args.v + row * args.stride;
    const float decay = args.decay[row * args.gate_stride],
                rate = args.rate[row * args.gate_stride];
    const float* before = row == rows.begin ? args.before : args.after;
    float* y = args.y + row * args.y_stride;
    for (int64_t j = 0; j < args.value_dim; ++j) {
      float sum = 0;
      for (int64_t d = 0; d < args.key_dim; ++d) {
        sum += k[d] * (before[d * args.value_dim + j] * decay);
      }
      const float change = rate * (v[j] - sum);
      float out = 0;
      for (int64_t d = 0; d < args.key_dim; ++d) {
        const int64_t at = d * args.value_dim + j;
        args.after[at] = before[at] * decay + k[d] * change;
        out += q[d] * args.after[at];
      }
      y[j] = out;
    }
  }
}

}  // namespace bakestone::reference
