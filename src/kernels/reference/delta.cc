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

void RwkvRule(const RwkvRuleArgs& args, Range rows) noexcept {
  const int64_t dim = args.dim;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t at = row * args.stride;
    const float* before = row == rows.begin ? args.before : args.after;
    for (int64_t j = 0; j < dim; ++j) {
      float removed = 0, out = 0;
      for (int64_t i = 0; i < dim; ++i) removed += args.removal[at + i] * before[i * dim + j];
      for (int64_t i = 0; i < dim; ++i) {
        const float back = args.removal[at + i] * args.rate[at + i];
        const float kept = before[i * dim + j] * args.decay[at + i] - back * removed;
        const float s = kept + args.k[at + i] * args.v[at + j];
        args.after[i * dim + j] = s;
        out += args.r[at + i] * s;
      }
      args.y[row * args.y_stride + j] = out;
    }
  }
}

}  // namespace bakestone::reference
