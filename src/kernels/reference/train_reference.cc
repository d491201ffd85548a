// The training kernels in plain scalar code: what the formulas in train_kernels.h mean. Sums are in
// double and rounded once; every faster table is tested against this one.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/train_kernels.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

double Wide(uint16_t x) { return static_cast<double>(BF16ToFloat(x)); }
double Wide(float x) { return static_cast<double>(x); }
uint16_t Round(double x) { return FloatToBF16(static_cast<float>(x)); }

void Gemm(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
          int64_t panel_end) noexcept {
  const int64_t col_end = std::min(panel_end * kTrainLanes, args.cols);
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t col = panel_begin * kTrainLanes; col < col_end; ++col) {
      double sum = 0;
      for (int32_t i = 0; i < args.num_segments; ++i) {
        const TrainSegment& segment = args.segments[i];
        const uint16_t* x = segment.x + row * segment.x_stride;
        const uint16_t* w =
            segment.panels + col / kTrainLanes * segment.panel_stride + col % kTrainLanes * 2;
        for (int64_t k = 0; k < segment.k; ++k) {
          sum += Wide(x[k]) * Wide(w[k / 2 * 2 * kTrainLanes + k % 2]);
        }
      }
      if (args.column_scale != nullptr) sum *= Wide(args.column_scale[col]);
      const int64_t at = row * args.out_stride + col;
      if (args.store == TrainStore::kBF16) {
        static_cast<uint16_t*>(args.out)[at] = Round(sum);
      } else {
        float* out = static_cast<float*>(args.out) + at;
        *out = static_cast<float>(args.store == TrainStore::kAddF32 ? Wide(*out) + sum : sum);
      }
    }
  }
}

void Outer(const TrainOuterArgs& args, int64_t col_begin, int64_t col_end) noexcept {
  for (int64_t r = 0; r < args.r; ++r) {
    const uint16_t* s = args.s + r / kTrainLanes * args.s_panel_stride + r % kTrainLanes * 2;
    for (int64_t col = col_begin; col < col_end; ++col) {
      double sum = 0;
      for (int64_t t = 0; t < args.rows; ++t) {
        sum += Wide(s[t / 2 * 2 * kTrainLanes + t % 2]) * Wide(args.z[t * args.z_stride + col]);
      }
      args.out[r * args.out_row_stride + col * args.out_col_stride] += static_cast<float>(sum);
    }
  }
}

void PackLanes(const uint16_t* x, int64_t stride, int64_t n, int64_t k, int64_t k_padded,
               uint16_t* panels, int64_t panel_stride, int64_t panel_begin,
               int64_t panel_end) noexcept {
  for (int64_t row = panel_begin * kTrainLanes; row < panel_end * kTrainLanes; ++row) {
    uint16_t* out = panels + row / kTrainLanes * panel_stride + row % kTrainLanes * 2;
    for (int64_t c = 0; c < k_padded; ++c) {
      out[c / 2 * 2 * kTrainLanes + c % 2] = row < n && c < k ? x[row * stride + c] : uint16_t{0};
    }
  }
}

void PackPairs(const uint16_t* x, int64_t stride, int64_t k, int64_t n, int64_t k_padded,
               uint16_t* panels, int64_t panel_stride, int64_t panel_begin,
               int64_t panel_end) noexcept {
  for (int64_t col = panel_begin * kTrainLanes; col < panel_end * kTrainLanes; ++col) {
    uint16_t* out = panels + col / kTrainLanes * panel_stride + col % kTrainLanes * 2;
    for (int64_t row = 0; row < k_padded; ++row) {
      out[row / 2 * 2 * kTrainLanes + row % 2] =
          row < k && col < n ? x[row * stride + col] : uint16_t{0};
    }
  }
}

void TransposePanels(const uint16_t* in, int64_t in_stride, int64_t n, uint16_t* out,
                     int64_t out_stride, int64_t panel_begin, int64_t panel_end) noexcept {
  for (int64_t k = panel_begin * kTrainLanes; k < panel_end * kTrainLanes; ++k) {
    for (int64_t row = 0; row < n; ++row) {
      out[k / kTrainLanes * out_stride + (row / 2 * kTrainLanes + k % kTrainLanes) * 2 + row % 2] =
          in[row / kTrainLanes * in_stride + (k / 2 * kTrainLanes + row % kTrainLanes) * 2 + k % 2];
    }
  }
}

void Transpose(const uint16_t* x, int64_t stride, int64_t rows, uint16_t* out, int64_t out_stride,
               int64_t col_begin, int64_t col_end) noexcept {
  for (int64_t col = col_begin; col < col_end; ++col) {
    for (int64_t row = 0; row < out_stride; ++row) {
      out[col * out_stride + row] = row < rows ? x[row * stride + col] : uint16_t{0};
    }
  }
}

void AddBf16(const uint16_t* y, float* x, int64_t size) noexcept {
  for (int64_t i = 0; i < size; ++i) x[i] += BF16ToFloat(y[i]);
}

void ColumnDot(const TrainColumnDotArgs& args, int64_t col_begin, int64_t col_end) noexcept {
  for (int64_t col = col_begin; col < col_end; ++col) {
    double sum = 0;
    for (int64_t row = 0; row < args.rows; ++row) {
      const double a = args.a != nullptr ? Wide(args.a[row * args.a_stride + col])
                                         : Wide(args.a_bf16[row * args.a_stride + col]);
      sum += args.b == nullptr ? a : a * Wide(args.b[row * args.b_stride + col]);
    }
    if (args.factor != nullptr) sum *= Wide(args.factor[col]);
    args.sums[col] = static_cast<float>(Wide(args.sums[col]) + sum);
  }
}

void ToBf16(const float* x, uint16_t* out, int64_t size) noexcept {
  for (int64_t i = 0; i < size; ++i) out[i] = FloatToBF16(x[i]);
}

void Norm(const TrainNormArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.dim;
    double sum = 0;
    for (int64_t i = 0; i < args.dim; ++i) sum += Wide(x[i]) * Wide(x[i]);
    const double inverse = 1 / std::sqrt(sum / static_cast<double>(args.dim) + Wide(args.eps));
    args.inverse[row] = static_cast<float>(inverse);
    for (int64_t i = 0; i < args.dim; ++i) {
      const uint16_t y = FloatToBF16(x[i] * args.inverse[row]);
      if (args.y != nullptr) args.y[row * args.dim + i] = y;
      if (args.h != nullptr) args.h[row * args.dim + i] = Round(Wide(y) * Wide(args.weight[i]));
    }
  }
}

void NormBackward(const TrainNormBackwardArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.dim;
    double mean = 0;
    for (int64_t i = 0; i < args.dim; ++i) {
      mean += Wide(args.dh[at + i]) * Wide(args.weight[i]) * Wide(args.y[at + i]);
    }
    mean /= static_cast<double>(args.dim);
    for (int64_t i = 0; i < args.dim; ++i) {
      const double g = Wide(args.dh[at + i]) * Wide(args.weight[i]);
      const double d = Wide(args.inverse[row]) * (g - Wide(args.y[at + i]) * mean);
      args.dx[at + i] = static_cast<float>(Wide(args.dx[at + i]) + d);
      if (args.dx_bf16 != nullptr) args.dx_bf16[at + i] = FloatToBF16(args.dx[at + i]);
    }
  }
}

void ScaleRows(const uint16_t* y, const float* weight, int64_t rows, int64_t dim,
               uint16_t* h) noexcept {
  for (int64_t i = 0; i < rows * dim; ++i) h[i] = Round(Wide(y[i]) * Wide(weight[i % dim]));
}

void Rope(const TrainRopeArgs& args) noexcept {
  const int64_t half = args.dim / 2;
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* x = args.x + row * args.x_stride + head * args.head_dim;
      uint16_t* out = args.out + row * args.out_stride + head * args.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const double c = Wide(args.cosines[row * half + i]);
        const double s = Wide(args.sines[row * half + i]) * Wide(args.sign);
        out[i] = Round(Wide(x[i]) * c - Wide(x[half + i]) * s);
        out[half + i] = Round(Wide(x[half + i]) * c + Wide(x[i]) * s);
      }
      for (int64_t i = args.dim; i < args.head_dim; ++i) out[i] = FloatToBF16(x[i]);
    }
  }
}

void SwiGlu(const TrainSwiGluArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t i = 0; i < args.dim; ++i) {
      const double gate = Wide(args.gate[row * args.stride + i]);
      const double up = Wide(args.up[row * args.stride + i]);
      args.act[row * args.act_stride + i] =
          Round(Wide(args.factor) * gate / (1 + std::exp(-gate)) * up);
    }
  }
}

void SwiGluBackward(const TrainSwiGluArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t i = 0; i < args.dim; ++i) {
      const int64_t at = row * args.stride + i;
      const double gate = Wide(args.gate[at]), up = Wide(args.up[at]);
      const double d = Wide(args.factor) * Wide(args.d_act[row * args.d_act_stride + i]);
      const double sigmoid = 1 / (1 + std::exp(-gate));
      args.d_gate[at] = Round(d * up * sigmoid * (1 + gate * (1 - sigmoid)));
      args.d_up[at] = Round(d * gate * sigmoid);
      if (args.act != nullptr) {
        args.act[row * args.act_stride + i] = Round(Wide(args.factor) * gate * sigmoid * up);
      }
    }
  }
}

void Softmax(const TrainSoftmaxArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    float* s = args.s + row * args.s_stride;
    uint16_t* p = args.p + row * args.p_stride;
    const int64_t seen = std::min(args.first_visible + row, args.cols);
    const double top = Wide(*std::max_element(s, s + seen)) * Wide(args.scale);
    double sum = 0;
    for (int64_t i = 0; i < seen; ++i) sum += std::exp(Wide(s[i]) * Wide(args.scale) - top);
    for (int64_t i = 0; i < args.padded_cols; ++i) {
      p[i] = i < seen ? Round(std::exp(Wide(s[i]) * Wide(args.scale) - top) / sum) : uint16_t{0};
    }
    args.log_sum[row] = static_cast<float>(top + std::log(sum));
  }
}

void SoftmaxBackward(const TrainSoftmaxBackwardArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t i = 0; i < args.padded_cols; ++i) {
      const bool visible = i < args.cols && (args.by_column ? i >= row - args.first_visible
                                                            : i < args.first_visible + row);
      double p = 0, ds = 0;
      if (visible) {
        const int64_t query = args.by_column ? i : row;
        p = std::exp(Wide(args.scale) * Wide(args.s[row * args.stride + i]) -
                     Wide(args.log_sum[query]));
        ds =
            Wide(args.scale) * p * (Wide(args.dp[row * args.stride + i]) - Wide(args.delta[query]));
      }
      if (args.p != nullptr) args.p[row * args.out_stride + i] = Round(p);
      if (args.ds != nullptr) args.ds[row * args.out_stride + i] = Round(ds);
    }
  }
}

void RowDot(const TrainRowDotArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const int64_t at = (row * args.heads + head) * args.head_dim;
      double sum = 0;
      for (int64_t i = 0; i < args.head_dim; ++i) {
        sum += Wide(args.a[at + i]) * Wide(args.b[at + i]);
      }
      args.delta[head * args.delta_stride + row] = static_cast<float>(sum);
    }
  }
}

void LossPart(const TrainLossPartArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.logits + row * args.stride;
    const float top = *std::max_element(x, x + args.cols);
    double sum = 0;
    for (int64_t i = 0; i < args.cols; ++i) sum += std::exp(Wide(x[i]) - Wide(top));
    args.parts[row] = {top, static_cast<float>(sum)};
  }
}

void LossGradient(const TrainLossGradientArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.logits + row * args.stride;
    const float* base = args.base == nullptr ? nullptr : args.base + row * args.stride;
    double kl = 0;
    for (int64_t i = 0; i < args.cols; ++i) {
      const double log_p = Wide(x[i]) - Wide(args.log_sum[row]);
      double goal = i + args.first == args.targets[row] ? 1 : 0;
      if (base != nullptr) {
        const double log_q = Wide(base[i]) - Wide(args.base_log_sum[row]);
        goal = std::exp(log_q);
        kl += goal * (log_q - log_p);
      }
      if (args.d != nullptr) {
        args.d[row * args.d_stride + i] = Round(Wide(args.factors[row]) * (std::exp(log_p) - goal));
      }
    }
    if (base != nullptr) args.kl[row] += kl;
    for (int64_t i = args.cols; args.d != nullptr && i < args.d_cols; ++i) {
      args.d[row * args.d_stride + i] = 0;
    }
  }
}

double SumSquares(const float* x, int64_t size) noexcept {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += Wide(x[i]) * Wide(x[i]);
  return sum;
}

void AdamW(const TrainAdamWArgs& args) noexcept {
  for (int64_t i = 0; i < args.size; ++i) {
    const double g = Wide(args.gradients[i]) * Wide(args.gradient_scale);
    const double m = Wide(args.beta1) * Wide(args.m[i]) + (1 - Wide(args.beta1)) * g;
    const double v = Wide(args.beta2) * Wide(args.v[i]) + (1 - Wide(args.beta2)) * g * g;
    args.m[i] = static_cast<float>(m);
    args.v[i] = static_cast<float>(v);
    const double update =
        m * Wide(args.m_correction) / (std::sqrt(v * Wide(args.v_correction)) + Wide(args.eps));
    const double param = Wide(args.params[i]);
    args.params[i] =
        static_cast<float>(param - Wide(args.rate) * (update + Wide(args.weight_decay) * param));
  }
}

}  // namespace

constinit const TrainKernels kTrainReference = {.product = "scalar, f64 sums",
                                                .tiles = false,
                                                .gemm = Gemm,
                                                .outer = Outer,
                                                .pack_lanes = PackLanes,
                                                .pack_pairs = PackPairs,
                                                .transpose_panels = TransposePanels,
                                                .transpose = Transpose,
                                                .to_bf16 = ToBf16,
                                                .add_bf16 = AddBf16,
                                                .column_dot = ColumnDot,
                                                .norm = Norm,
                                                .norm_backward = NormBackward,
                                                .scale_rows = ScaleRows,
                                                .rope = Rope,
                                                .swiglu = SwiGlu,
                                                .swiglu_backward = SwiGluBackward,
                                                .softmax = Softmax,
                                                .softmax_backward = SoftmaxBackward,
                                                .row_dot = RowDot,
                                                .loss_part = LossPart,
                                                .loss_gradient = LossGradient,
                                                .sum_squares = SumSquares,
                                                .adamw = AdamW};

}  // namespace bakestone
