// The training kernels in plain scalar code: what the formulas in train_kernels.h mean. Sums are in
// double and rounded once; every faster table is tested against this one.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

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
    double mean = 0, sum = 0;
    for (int64_t i = 0; i < args.dim && args.centred; ++i) mean += Wide(x[i]);
    mean /= static_cast<double>(args.dim);
    for (int64_t i = 0; i < args.dim; ++i) sum += (Wide(x[i]) - mean) * (Wide(x[i]) - mean);
    const double inverse = 1 / std::sqrt(sum / static_cast<double>(args.dim) + Wide(args.eps));
    args.inverse[row] = static_cast<float>(inverse);
    for (int64_t i = 0; i < args.dim; ++i) {
      const uint16_t y = FloatToBF16((x[i] - static_cast<float>(mean)) * args.inverse[row]);
      if (args.y != nullptr) args.y[row * args.dim + i] = y;
      const double bias = args.bias == nullptr ? 0 : Wide(args.bias[i]);
      if (args.h != nullptr) {
        args.h[row * args.dim + i] = Round(Wide(y) * Wide(args.weight[i]) + bias);
      }
    }
  }
}

void NormBackward(const TrainNormBackwardArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.dim;
    double mean = 0, centre = 0;
    for (int64_t i = 0; i < args.dim; ++i) {
      const double g = Wide(args.dh[at + i]) * Wide(args.weight[i]);
      mean += g * Wide(args.y[at + i]);
      if (args.centred) centre += g;
    }
    mean /= static_cast<double>(args.dim);
    centre /= static_cast<double>(args.dim);
    for (int64_t i = 0; i < args.dim; ++i) {
      const double g = Wide(args.dh[at + i]) * Wide(args.weight[i]);
      const double d = Wide(args.inverse[row]) * (g - centre - Wide(args.y[at + i]) * mean);
      args.dx[at + i] = static_cast<float>(Wide(args.dx[at + i]) + d);
      if (args.dx_bf16 != nullptr) args.dx_bf16[at + i] = FloatToBF16(args.dx[at + i]);
    }
  }
}

void ScaleRows(const uint16_t* y, const float* weight, const float* bias, int64_t rows, int64_t dim,
               uint16_t* h) noexcept {
  for (int64_t i = 0; i < rows * dim; ++i) {
    h[i] = Round(Wide(y[i]) * Wide(weight[i % dim]) + (bias == nullptr ? 0 : Wide(bias[i % dim])));
  }
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

struct Activated {
  double gate, gate_slope, up, up_slope;
};

Activated ActivatedAt(TrainGate kind, double gate, double up) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  if (kind == TrainGate::kSilu) {
    const double s = sigmoid(gate);
    return {gate * s, s * (1 + gate * (1 - s)), up, 1};
  }
  if (kind == TrainGate::kSigmoid) {
    const double s = sigmoid(gate);
    return {s, s * (1 - s), up, 1};
  }
  if (kind == TrainGate::kClamped) {
    const double g = std::min(gate, 7.0), s = sigmoid(1.702 * g);
    return {g * s, gate <= 7 ? s * (1 + 1.702 * g * (1 - s)) : 0, std::clamp(up, -7.0, 7.0) + 1,
            std::fabs(up) <= 7 ? 1.0 : 0.0};
  }
  const double root = std::sqrt(2 / std::numbers::pi), cubic = 0.044715;
  const double t = std::tanh(root * (gate + cubic * gate * gate * gate));
  const double slope =
      0.5 * (1 + t) + 0.5 * gate * (1 - t * t) * root * (1 + 3 * cubic * gate * gate);
  return {0.5 * gate * (1 + t), slope, kind == TrainGate::kGelu ? up : 1, 1};
}

template <TrainGate kGate>
void Activate(const TrainActivationArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t i = 0; i < args.dim; ++i) {
      const int64_t at = row * args.stride + i;
      const double up = kGate == TrainGate::kGeluAlone ? 0 : Wide(args.up[at]);
      const Activated here = ActivatedAt(kGate, Wide(args.gate[at]), up);
      args.act[row * args.act_stride + i] = Round(Wide(args.factor) * here.gate * here.up);
    }
  }
}

template <TrainGate kGate>
void ActivateBackward(const TrainActivationArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t i = 0; i < args.dim; ++i) {
      const int64_t at = row * args.stride + i;
      const double up = kGate == TrainGate::kGeluAlone ? 0 : Wide(args.up[at]);
      const Activated here = ActivatedAt(kGate, Wide(args.gate[at]), up);
      const double d = Wide(args.factor) * Wide(args.d_act[row * args.d_act_stride + i]);
      args.d_gate[at] = Round(d * here.up * here.gate_slope);
      if (kGate != TrainGate::kGeluAlone) args.d_up[at] = Round(d * here.gate * here.up_slope);
      if (args.act != nullptr) {
        args.act[row * args.act_stride + i] = Round(Wide(args.factor) * here.gate * here.up);
      }
    }
  }
}

void Sigmoid(const float* x, float* y, int64_t size) noexcept {
  for (int64_t i = 0; i < size; ++i) y[i] = static_cast<float>(1 / (1 + std::exp(-Wide(x[i]))));
}

void SoftCap(float* x, int64_t size, float in, float out) noexcept {
  for (int64_t i = 0; i < size; ++i) {
    x[i] = static_cast<float>(Wide(out) * std::tanh(Wide(in) * Wide(x[i])));
  }
}

void SoftCapBackward(const float* x, float factor, uint16_t* d, int64_t size) noexcept {
  for (int64_t i = 0; i < size; ++i) {
    const double t = std::clamp(Wide(factor) * Wide(x[i]), -1.0, 1.0);
    d[i] = Round(Wide(d[i]) * (1 - t * t));
  }
}

void Convolve(const TrainConvolveArgs& args, int64_t begin, int64_t end, int64_t channel_begin,
              int64_t channel_end) noexcept {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t c = channel_begin; c < channel_end; ++c) {
      double sum = args.bias == nullptr ? 0 : Wide(args.bias[c]);
      for (int64_t tap = 0; tap < args.count; ++tap) {
        const int64_t from = row - (args.count - 1) + tap;
        if (from < begin) continue;
        sum += Wide(args.taps[tap * args.channels + c]) * Wide(args.x[from * args.x_stride + c]);
      }
      args.out[row * args.channels + c] = static_cast<float>(sum);
    }
  }
}

void ConvolveBackward(const TrainConvolveArgs& args, int64_t begin, int64_t end,
                      int64_t channel_begin, int64_t channel_end) noexcept {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t c = channel_begin; c < channel_end; ++c) {
      double sum = 0;
      for (int64_t tap = 0; tap < args.count; ++tap) {
        const int64_t to = row + (args.count - 1) - tap;
        if (to >= end) continue;
        sum += Wide(args.taps[tap * args.channels + c]) * Wide(args.d[to * args.channels + c]);
      }
      args.out[row * args.channels + c] = static_cast<float>(sum);
    }
  }
}

void State(const TrainStateArgs& args) noexcept {
  const TrainStateRows& in = args.in;
  const int64_t keys = in.key_dim, values = in.value_dim;
  for (int64_t t = 0; t < in.rows; ++t) {
    const float* before = args.states + t * args.states_stride;
    float* after = args.states + (t + 1) * args.states_stride;
    for (int64_t j = 0; j < values; ++j) {
      double s = 0, y = 0;
      for (int64_t i = 0; i < keys; ++i)
        s += Wide(in.a[t * keys + i]) * Wide(before[i * values + j]);
      for (int64_t i = 0; i < keys; ++i) {
        const int64_t at = t * keys + i;
        const double next = Wide(in.w[at]) * Wide(before[i * values + j]) + Wide(in.b[at]) * s +
                            Wide(in.k[at]) * Wide(in.v[t * values + j]);
        after[i * values + j] = static_cast<float>(next);
        y += Wide(in.q[at]) * next;
      }
      args.s[t * values + j] = static_cast<float>(s);
      args.y[t * values + j] = static_cast<float>(y);
    }
  }
}

void StateBackward(const TrainStateBackwardArgs& args) noexcept {
  const TrainStateRows& in = args.in;
  const int64_t keys = in.key_dim, values = in.value_dim;
  for (int64_t t = in.rows - 1; t >= 0; --t) {
    const float *before = args.states + t * args.states_stride, *s = args.s + t * values,
                *dy = args.dy + t * values, *v = in.v + t * values;
    for (int64_t j = 0; j < values; ++j) {
      double dv = 0, ds = 0;
      for (int64_t i = 0; i < keys; ++i) {
        const double g =
            Wide(args.d_state[i * values + j]) + Wide(in.q[t * keys + i]) * Wide(dy[j]);
        dv += g * Wide(in.k[t * keys + i]);
        ds += g * Wide(in.b[t * keys + i]);
      }
      args.dv[t * values + j] = static_cast<float>(dv);
      args.ds[t * values + j] = static_cast<float>(ds);
    }
    for (int64_t i = 0; i < keys; ++i) {
      const int64_t at = t * keys + i;
      double dq = 0, dk = 0, da = 0, db = 0, dw = 0;
      for (int64_t j = 0; j < values; ++j) {
        float& d_state = args.d_state[i * values + j];
        const double state = Wide(before[i * values + j]), ds = Wide(args.ds[t * values + j]);
        const double g = Wide(d_state) + Wide(in.q[at]) * Wide(dy[j]);
        dk += g * Wide(v[j]);
        db += g * Wide(s[j]);
        dw += g * state;
        da += state * ds;
        dq += Wide(dy[j]) *
              (Wide(in.w[at]) * state + Wide(in.b[at]) * Wide(s[j]) + Wide(in.k[at]) * Wide(v[j]));
        d_state = static_cast<float>(Wide(in.w[at]) * g + Wide(in.a[at]) * ds);
      }
      args.dq[at] = static_cast<float>(dq);
      args.dk[at] = static_cast<float>(dk);
      args.da[at] = static_cast<float>(da);
      args.db[at] = static_cast<float>(db);
      args.dw[at] = static_cast<float>(dw);
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

constinit const TrainKernels kTrainReference = {
    .product = "scalar, f64 sums",
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
    .activate = {Activate<TrainGate::kSilu>, Activate<TrainGate::kGelu>,
                 Activate<TrainGate::kGeluAlone>, Activate<TrainGate::kClamped>,
                 Activate<TrainGate::kSigmoid>},
    .activate_backward = {ActivateBackward<TrainGate::kSilu>, ActivateBackward<TrainGate::kGelu>,
                          ActivateBackward<TrainGate::kGeluAlone>,
                          ActivateBackward<TrainGate::kClamped>,
                          ActivateBackward<TrainGate::kSigmoid>},
    .sigmoid = Sigmoid,
    .soft_cap = SoftCap,
    .soft_cap_backward = SoftCapBackward,
    .convolve = Convolve,
    .convolve_backward = ConvolveBackward,
    .state = State,
    .state_backward = StateBackward,
    .softmax = Softmax,
    .softmax_backward = SoftmaxBackward,
    .row_dot = RowDot,
    .loss_part = LossPart,
    .loss_gradient = LossGradient,
    .sum_squares = SumSquares,
    .adamw = AdamW};

}  // namespace bakestone
