// The row operations of training, written once over a vector class V of 16 floats; Load and Store
// take the number of elements left, so that a tail needs no code of its own (absent lanes read as
// 0). Formulas and shapes: kernels/train_kernels.h. Include inside the unit's anonymous namespace,
// after kStateVectors: the vectors of a state's row that registers hold three of each.

// exp(x): 2^n * P(r), |r| <= ln(2) / 2, a degree-6 polynomial; within 2 ulp; 0 below -87.
template <class V>
[[gnu::always_inline]] inline typename V::F Exp(typename V::F x) noexcept {
  using F = typename V::F;
  const F clamped = V::Min(V::Max(x, V::Set(-87.0f)), V::Set(88.0f));
  const F n = V::Round(V::Mul(clamped, V::Set(1.44269504f)));
  const F r = V::Fma(n, V::Set(2.12194440e-4f), V::Fma(n, V::Set(-0.693359375f), clamped));
  F p = V::Set(1.9875691500e-4f);
  p = V::Fma(p, r, V::Set(1.3981999507e-3f));
  p = V::Fma(p, r, V::Set(8.3334519073e-3f));
  p = V::Fma(p, r, V::Set(4.1665795894e-2f));
  p = V::Fma(p, r, V::Set(1.6666665459e-1f));
  p = V::Fma(p, r, V::Set(5.0000001201e-1f));
  p = V::Add(V::Fma(V::Mul(r, r), p, r), V::Set(1.0f));
  return V::ZeroWhereLess(V::Mul(p, V::Pow2(n)), x, V::Set(-87.0f));
}

template <class V>
void ToBf16(const float* x, uint16_t* out, int64_t size) noexcept {
  for (int64_t i = 0; i < size; i += 16) V::StoreExact(out + i, V::Load(x + i, size - i), size - i);
}

template <class V>
void AddBf16(const uint16_t* y, float* x, int64_t size) noexcept {
  for (int64_t i = 0; i < size; i += 16) {
    const int64_t left = size - i;
    V::Store(x + i, V::Add(V::Load(x + i, left), V::LoadBf16(y + i, left)), left);
  }
}

template <class V>
void ColumnDot(const TrainColumnDotArgs& args, int64_t col_begin, int64_t col_end) noexcept {
  using F = typename V::F;
  for (int64_t col = col_begin; col < col_end; col += 16) {
    const int64_t left = col_end - col;
    F sum = V::Zero();
    for (int64_t row = 0; row < args.rows; ++row) {
      const int64_t at = row * args.a_stride + col;
      const F a =
          args.a != nullptr ? V::Load(args.a + at, left) : V::LoadBf16(args.a_bf16 + at, left);
      sum = args.b == nullptr
                ? V::Add(sum, a)
                : V::Fma(a, V::LoadBf16(args.b + row * args.b_stride + col, left), sum);
    }
    if (args.factor != nullptr) sum = V::Mul(sum, V::Load(args.factor + col, left));
    V::Store(args.sums + col, V::Add(V::Load(args.sums + col, left), sum), left);
  }
}

template <class V>
float MeanOf(const float* x, int64_t dim) noexcept {
  typename V::F sum = V::Zero();
  for (int64_t i = 0; i < dim; i += 16) sum = V::Add(sum, V::Load(x + i, dim - i));
  return V::Sum(sum) / static_cast<float>(dim);
}

template <class V>
void Norm(const TrainNormArgs& args) noexcept {
  using F = typename V::F;
  const int64_t dim = args.dim;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * dim;
    const float mean = args.centred ? MeanOf<V>(x, dim) : 0.0f;
    F sum = V::Zero();
    for (int64_t i = 0; i < dim; i += 16) {
      const F value = V::Sub(V::LoadOr(x + i, dim - i, mean), V::Set(mean));
      sum = V::Fma(value, value, sum);
    }
    const float inverse = 1.0f / __builtin_sqrtf(V::Sum(sum) / static_cast<float>(dim) + args.eps);
    args.inverse[row] = inverse;
    for (int64_t i = 0; i < dim; i += 16) {
      const F centred = V::Sub(V::Load(x + i, dim - i), V::Set(mean));
      const F y = V::RoundBf16(V::Mul(centred, V::Set(inverse)));
      if (args.y != nullptr) V::StoreBf16(args.y + row * dim + i, y, dim - i);
      if (args.h == nullptr) continue;
      const F scaled = V::Mul(y, V::Load(args.weight + i, dim - i));
      const F h = args.bias == nullptr ? scaled : V::Add(scaled, V::Load(args.bias + i, dim - i));
      V::StoreBf16(args.h + row * dim + i, h, dim - i);
    }
  }
}

template <class V>
void NormBackward(const TrainNormBackwardArgs& args) noexcept {
  using F = typename V::F;
  const int64_t dim = args.dim;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* dh = args.dh + row * dim;
    const uint16_t* y = args.y + row * dim;
    float* dx = args.dx + row * dim;
    F sum = V::Zero(), plain = V::Zero();
    for (int64_t i = 0; i < dim; i += 16) {
      const F g = V::Mul(V::Load(dh + i, dim - i), V::Load(args.weight + i, dim - i));
      sum = V::Fma(g, V::LoadBf16(y + i, dim - i), sum);
      plain = V::Add(plain, g);
    }
    const F mean = V::Set(V::Sum(sum) / static_cast<float>(dim));
    const F centre = V::Set(args.centred ? V::Sum(plain) / static_cast<float>(dim) : 0.0f);
    const F inverse = V::Set(args.inverse[row]);
    for (int64_t i = 0; i < dim; i += 16) {
      const F g = V::Mul(V::Load(dh + i, dim - i), V::Load(args.weight + i, dim - i));
      const F inner = V::Sub(V::Sub(g, centre), V::Mul(V::LoadBf16(y + i, dim - i), mean));
      const F total = V::Fma(inverse, inner, V::Load(dx + i, dim - i));
      V::Store(dx + i, total, dim - i);
      if (args.dx_bf16 != nullptr) V::StoreBf16(args.dx_bf16 + row * dim + i, total, dim - i);
    }
  }
}

template <class V>
void ScaleRows(const uint16_t* y, const float* weight, const float* bias, int64_t rows, int64_t dim,
               uint16_t* h) noexcept {
  using F = typename V::F;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < dim; i += 16) {
      const int64_t left = dim - i;
      const F scaled = V::Mul(V::LoadBf16(y + row * dim + i, left), V::Load(weight + i, left));
      V::StoreBf16(h + row * dim + i,
                   bias == nullptr ? scaled : V::Add(scaled, V::Load(bias + i, left)), left);
    }
  }
}

template <class V>
void Rope(const TrainRopeArgs& args) noexcept {
  using F = typename V::F;
  const int64_t half = args.dim / 2;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* cosines = args.cosines + row * half;
    const float* sines = args.sines + row * half;
    for (int64_t head = 0; head < args.heads; ++head) {
      const float* x = args.x + row * args.x_stride + head * args.head_dim;
      uint16_t* out = args.out + row * args.out_stride + head * args.head_dim;
      for (int64_t i = 0; i < half; i += 16) {
        const int64_t left = half - i;
        const F a = V::Load(x + i, left), b = V::Load(x + half + i, left);
        const F c = V::Load(cosines + i, left);
        const F s = V::Mul(V::Load(sines + i, left), V::Set(args.sign));
        V::StoreBf16(out + i, V::Sub(V::Mul(a, c), V::Mul(b, s)), left);
        V::StoreBf16(out + half + i, V::Add(V::Mul(b, c), V::Mul(a, s)), left);
      }
      for (int64_t i = args.dim; i < args.head_dim; i += 16) {
        V::StoreBf16(out + i, V::Load(x + i, args.head_dim - i), args.head_dim - i);
      }
    }
  }
}

template <class V>
[[gnu::always_inline]] inline typename V::F Sigmoid(typename V::F x) noexcept {
  return V::Div(V::Set(1.0f), V::Add(V::Set(1.0f), Exp<V>(V::Sub(V::Zero(), x))));
}

// An activation is a product of what it makes of the gate and of up: both and their slopes.
template <class V>
struct Activated {
  typename V::F gate, gate_slope, up, up_slope;
};

template <class V, TrainGate kGate>
[[gnu::always_inline]] inline Activated<V> ActivatedAt(typename V::F gate,
                                                       typename V::F up) noexcept {
  using F = typename V::F;
  const F one = V::Set(1.0f);
  if constexpr (kGate == TrainGate::kSilu) {
    const F s = Sigmoid<V>(gate);
    return {V::Mul(gate, s), V::Mul(s, V::Fma(gate, V::Sub(one, s), one)), up, one};
  } else if constexpr (kGate == TrainGate::kSigmoid) {
    const F s = Sigmoid<V>(gate);
    return {s, V::Mul(s, V::Sub(one, s)), up, one};
  } else if constexpr (kGate == TrainGate::kClamped) {
    const F limit = V::Set(math::kClampedLimit), least = V::Set(-math::kClampedLimit),
            rate = V::Set(-math::kClampedRate);
    const F g = V::Min(gate, limit), s = Sigmoid<V>(V::Mul(rate, g));
    const F slope = V::Mul(s, V::Fma(V::Mul(rate, g), V::Sub(one, s), one));
    const F within = V::ZeroWhereLess(V::ZeroWhereLess(one, limit, up), up, least);
    return {V::Mul(g, s), V::ZeroWhereLess(slope, limit, gate),
            V::Add(V::Min(V::Max(up, least), limit), one), within};
  } else {
    // x * sigmoid(rate * inner), inner = x + cubic x^3.
    const F square = V::Mul(gate, gate), rate = V::Set(-math::kGeluRate),
            cubic = V::Set(math::kGeluCubic);
    const F inner = V::Mul(gate, V::Fma(cubic, square, one));
    const F s = Sigmoid<V>(V::Mul(rate, inner)), value = V::Mul(gate, s);
    const F inner_slope = V::Mul(rate, V::Fma(V::Mul(V::Set(3.0f), cubic), square, one));
    const F slope = V::Fma(V::Mul(value, V::Sub(one, s)), inner_slope, s);
    return {value, slope, kGate == TrainGate::kGelu ? up : one, one};
  }
}

template <class V, TrainGate kGate>
[[gnu::always_inline]] inline typename V::F LoadUp(const uint16_t* up, int64_t left) noexcept {
  return kGate == TrainGate::kGeluAlone ? V::Zero() : V::LoadBf16(up, left);
}

template <class V, TrainGate kGate>
void Activate(const TrainActivationArgs& args) noexcept {
  using F = typename V::F;
  const F factor = V::Set(args.factor);
  for (int64_t row = 0; row < args.rows; ++row) {
    const uint16_t *gate = args.gate + row * args.stride, *up = args.up + row * args.stride;
    uint16_t* act = args.act + row * args.act_stride;
    for (int64_t i = 0; i < args.dim; i += 16) {
      const int64_t left = args.dim - i;
      const Activated<V> at =
          ActivatedAt<V, kGate>(V::LoadBf16(gate + i, left), LoadUp<V, kGate>(up + i, left));
      V::StoreBf16(act + i, V::Mul(at.gate, V::Mul(factor, at.up)), left);
    }
  }
}

// Rows are far apart where only some of their channels are asked for.
constexpr int64_t kRowsAhead = 4;

template <class V, TrainGate kGate>
void ActivateBackward(const TrainActivationArgs& args) noexcept {
  using F = typename V::F;
  const F factor = V::Set(args.factor);
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.stride;
    const uint16_t *gate = args.gate + at, *up = args.up + at;
    const uint16_t* d_act = args.d_act + row * args.d_act_stride;
    uint16_t *d_gate = args.d_gate + at, *d_up = args.d_up + at;
    uint16_t* act = args.act == nullptr ? nullptr : args.act + row * args.act_stride;
    if (row + kRowsAhead < args.rows) {
      const int64_t ahead = kRowsAhead * args.stride;
      for (int64_t i = 0; i < args.dim; i += 32) {
        __builtin_prefetch(gate + ahead + i, 0, 2);
        __builtin_prefetch(up + ahead + i, 0, 2);
      }
    }
    for (int64_t i = 0; i < args.dim; i += 16) {
      const int64_t left = args.dim - i;
      const Activated<V> here =
          ActivatedAt<V, kGate>(V::LoadBf16(gate + i, left), LoadUp<V, kGate>(up + i, left));
      const F d = V::Mul(factor, V::LoadBf16(d_act + i, left));
      V::StoreBf16(d_gate + i, V::Mul(V::Mul(d, here.up), here.gate_slope), left);
      if constexpr (kGate != TrainGate::kGeluAlone) {
        V::StoreBf16(d_up + i, V::Mul(V::Mul(d, here.gate), here.up_slope), left);
      }
      if (act != nullptr) V::StoreBf16(act + i, V::Mul(here.gate, V::Mul(factor, here.up)), left);
    }
  }
}

template <class V>
void SigmoidOf(const float* x, float* y, int64_t size) noexcept {
  for (int64_t i = 0; i < size; i += 16) {
    V::Store(y + i, Sigmoid<V>(V::Load(x + i, size - i)), size - i);
  }
}

template <class V>
void SoftCap(float* x, int64_t size, float in, float out) noexcept {
  using F = typename V::F;
  const F twice = V::Set(2 * in), from = V::Set(out), down = V::Set(2 * out);
  for (int64_t i = 0; i < size; i += 16) {
    const int64_t left = size - i;
    const F e = Exp<V>(V::Mul(twice, V::Load(x + i, left)));
    V::Store(x + i, V::Sub(from, V::Div(down, V::Add(e, V::Set(1.0f)))), left);
  }
}

template <class V>
void SoftCapBackward(const float* x, float factor, uint16_t* d, int64_t size) noexcept {
  using F = typename V::F;
  for (int64_t i = 0; i < size; i += 16) {
    const int64_t left = size - i;
    const F t =
        V::Max(V::Min(V::Mul(V::Set(factor), V::Load(x + i, left)), V::Set(1.0f)), V::Set(-1.0f));
    V::StoreBf16(d + i, V::Mul(V::LoadBf16(d + i, left), V::Sub(V::Set(1.0f), V::Mul(t, t))), left);
  }
}

template <class V>
void Convolve(const TrainConvolveArgs& args, int64_t begin, int64_t end, int64_t channel_begin,
              int64_t channel_end) noexcept {
  using F = typename V::F;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t skipped = args.count - 1 - (row - begin);  // taps before the document
    for (int64_t c = channel_begin; c < channel_end; c += 16) {
      const int64_t left = channel_end - c;
      F sum = args.bias == nullptr ? V::Zero() : V::Load(args.bias + c, left);
      for (int64_t tap = skipped > 0 ? skipped : 0; tap < args.count; ++tap) {
        const int64_t from = row - (args.count - 1) + tap;
        sum = V::Fma(V::Load(args.taps + tap * args.channels + c, left),
                     V::LoadBf16(args.x + from * args.x_stride + c, left), sum);
      }
      V::Store(args.out + row * args.channels + c, sum, left);
    }
  }
}

template <class V>
void ConvolveBackward(const TrainConvolveArgs& args, int64_t begin, int64_t end,
                      int64_t channel_begin, int64_t channel_end) noexcept {
  using F = typename V::F;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t skipped = args.count - (end - row);  // taps that look beyond it
    for (int64_t c = channel_begin; c < channel_end; c += 16) {
      const int64_t left = channel_end - c;
      F sum = V::Zero();
      for (int64_t tap = skipped > 0 ? skipped : 0; tap < args.count; ++tap) {
        const int64_t to = row + (args.count - 1) - tap;
        sum = V::Fma(V::Load(args.taps + tap * args.channels + c, left),
                     V::Load(args.d + to * args.channels + c, left), sum);
      }
      V::Store(args.out + row * args.channels + c, sum, left);
    }
  }
}

#include "kernels/cpu/train_state.inl.h"

inline void ZeroBf16(uint16_t* x, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) x[i] = 0;
}

inline void ZeroOutside(uint16_t* x, int64_t begin, int64_t end, int64_t size) noexcept {
  if (x == nullptr) return;
  ZeroBf16(x, 0, begin);
  ZeroBf16(x, end, size);
}

template <class V>
void Softmax(const TrainSoftmaxArgs& args) noexcept {
  using F = typename V::F;
  const F scale = V::Set(args.scale);
  for (int64_t row = 0; row < args.rows; ++row) {
    float* s = args.s + row * args.s_stride;
    uint16_t* p = args.p + row * args.p_stride;
    const int64_t seen =
        args.first_visible + row < args.cols ? args.first_visible + row : args.cols;
    F largest = V::Set(-1e30f);
    for (int64_t i = 0; i < seen; i += 16) {
      largest = V::Max(largest, V::LoadOr(s + i, seen - i, -1e30f));
    }
    const float top = V::MaxAcross(largest);
    F sum = V::Zero();
    for (int64_t i = 0; i < seen; i += 16) {
      const F shifted = V::Mul(V::Sub(V::LoadOr(s + i, seen - i, -1e30f), V::Set(top)), scale);
      const F e = Exp<V>(shifted);
      sum = V::Add(sum, e);
      V::Store(s + i, e, seen - i);
    }
    const float total = V::Sum(sum);
    const F inverse = V::Set(1.0f / total);
    for (int64_t i = 0; i < seen; i += 16) {
      V::StoreBf16(p + i, V::Mul(V::Load(s + i, seen - i), inverse), seen - i);
    }
    ZeroBf16(p, seen, args.padded_cols);
    args.log_sum[row] = top * args.scale + __builtin_logf(total);
  }
}

template <class V>
void SoftmaxBackward(const TrainSoftmaxBackwardArgs& args) noexcept {
  using F = typename V::F;
  const F scale = V::Set(args.scale);
  for (int64_t row = 0; row < args.rows; ++row) {
    int64_t begin = 0, end = args.cols;
    if (args.by_column) {
      begin = row > args.first_visible ? row - args.first_visible : 0;
    } else {
      end = args.first_visible + row < args.cols ? args.first_visible + row : args.cols;
    }
    const float* s = args.s + row * args.stride;
    const float* dp = args.dp + row * args.stride;
    uint16_t* p_out = args.p == nullptr ? nullptr : args.p + row * args.out_stride;
    uint16_t* ds_out = args.ds == nullptr ? nullptr : args.ds + row * args.out_stride;
    for (int64_t i = begin & ~int64_t{15}; i < end; i += 16) {
      const int64_t left = end - i;
      const F log_sum =
          args.by_column ? V::Load(args.log_sum + i, left) : V::Set(args.log_sum[row]);
      const F delta = args.by_column ? V::Load(args.delta + i, left) : V::Set(args.delta[row]);
      const F p = Exp<V>(V::Sub(V::Mul(scale, V::Load(s + i, left)), log_sum));
      if (p_out != nullptr) V::StoreBf16(p_out + i, p, left);
      if (ds_out != nullptr) {
        const F ds = V::Mul(V::Mul(scale, p), V::Sub(V::Load(dp + i, left), delta));
        V::StoreBf16(ds_out + i, ds, left);
      }
    }
    ZeroOutside(p_out, begin, end, args.padded_cols);
    ZeroOutside(ds_out, begin, end, args.padded_cols);
  }
}

template <class V>
void RowDot(const TrainRowDotArgs& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    for (int64_t head = 0; head < args.heads; ++head) {
      const int64_t at = (row * args.heads + head) * args.head_dim;
      typename V::F sum = V::Zero();
      for (int64_t i = 0; i < args.head_dim; i += 16) {
        sum = V::Fma(V::LoadBf16(args.a + at + i, args.head_dim - i),
                     V::LoadBf16(args.b + at + i, args.head_dim - i), sum);
      }
      args.delta[head * args.delta_stride + row] = V::Sum(sum);
    }
  }
}

template <class V>
void LossPart(const TrainLossPartArgs& args) noexcept {
  using F = typename V::F;
  constexpr float kLeast = -3e38f;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.logits + row * args.stride;
    F largest = V::Set(kLeast);
    for (int64_t i = 0; i < args.cols; i += 16) {
      largest = V::Max(largest, V::LoadOr(x + i, args.cols - i, kLeast));
    }
    const float top = V::MaxAcross(largest);
    F sum = V::Zero();
    for (int64_t i = 0; i < args.cols; i += 16) {
      sum = V::Add(sum, Exp<V>(V::Sub(V::LoadOr(x + i, args.cols - i, kLeast), V::Set(top))));
    }
    args.parts[row] = {top, V::Sum(sum)};
  }
}

template <class V>
void LossGradient(const TrainLossGradientArgs& args) noexcept {
  using F = typename V::F;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.logits + row * args.stride;
    const float* base = args.base == nullptr ? nullptr : args.base + row * args.stride;
    uint16_t* d = args.d == nullptr ? nullptr : args.d + row * args.d_stride;
    const F shift = V::Set(args.log_sum[row]), factor = V::Set(args.factors[row]);
    if (base != nullptr) {
      const F base_shift = V::Set(args.base_log_sum[row]);
      F sum = V::Zero();
      for (int64_t i = 0; i < args.cols; i += 16) {
        const int64_t left = args.cols - i;
        const F log_p = V::Sub(V::LoadOr(x + i, left, -1e30f), shift);
        const F log_q = V::Sub(V::LoadOr(base + i, left, -1e30f), base_shift);
        const F q = Exp<V>(log_q);
        sum = V::Fma(q, V::Sub(log_q, log_p), sum);
        if (d != nullptr) V::StoreBf16(d + i, V::Mul(factor, V::Sub(Exp<V>(log_p), q)), left);
      }
      args.kl[row] += static_cast<double>(V::Sum(sum));
    } else if (d != nullptr) {
      for (int64_t i = 0; i < args.cols; i += 16) {
        const int64_t left = args.cols - i;
        V::StoreBf16(d + i, V::Mul(Exp<V>(V::Sub(V::Load(x + i, left), shift)), factor), left);
      }
      const int64_t target = args.targets[row] - args.first;
      if (target >= 0 && target < args.cols) {
        const double p =
            __builtin_exp(static_cast<double>(x[target]) - static_cast<double>(args.log_sum[row]));
        d[target] =
            FloatToBF16(static_cast<float>((p - 1) * static_cast<double>(args.factors[row])));
      }
    }
    if (d != nullptr) ZeroBf16(d, args.cols, args.d_cols);
  }
}

inline double SumSquares(const float* x, int64_t size) noexcept {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      sums[lane] += static_cast<double>(x[i + lane]) * static_cast<double>(x[i + lane]);
    }
  }
  for (; i < size; ++i) sums[i % 8] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

template <class V>
void AdamW(const TrainAdamWArgs& args) noexcept {
  using F = typename V::F;
  const F beta1 = V::Set(args.beta1), beta2 = V::Set(args.beta2);
  const F rest1 = V::Set(1.0f - args.beta1), rest2 = V::Set(1.0f - args.beta2);
  const F keep = V::Set(1.0f - args.rate * args.weight_decay);
  for (int64_t i = 0; i < args.size; i += 16) {
    const int64_t left = args.size - i;
    const F g = V::Mul(V::Load(args.gradients + i, left), V::Set(args.gradient_scale));
    const F m = V::Fma(beta1, V::Load(args.m + i, left), V::Mul(rest1, g));
    const F v = V::Fma(beta2, V::Load(args.v + i, left), V::Mul(rest2, V::Mul(g, g)));
    V::Store(args.m + i, m, left);
    V::Store(args.v + i, v, left);
    const F root = V::Sqrt(V::Mul(v, V::Set(args.v_correction)));
    const F update = V::Div(V::Mul(m, V::Set(args.m_correction)), V::Add(root, V::Set(args.eps)));
    const F param = V::Mul(V::Load(args.params + i, left), keep);
    V::Store(args.params + i, V::Sub(param, V::Mul(V::Set(args.rate), update)), left);
  }
}

template <class V>
constexpr TrainKernels MakeTrainKernels() {
  return {.product = "f32 fma",
          .tiles = false,
          .gemm = nullptr,
          .outer = nullptr,
          .pack_lanes = PackLanes<V>,
          .pack_pairs = PackPairs<V>,
          .transpose_panels = TransposePanels<V>,
          .transpose = Transpose<V>,
          .to_bf16 = ToBf16<V>,
          .add_bf16 = AddBf16<V>,
          .column_dot = ColumnDot<V>,
          .norm = Norm<V>,
          .norm_backward = NormBackward<V>,
          .scale_rows = ScaleRows<V>,
          .rope = Rope<V>,
          .activate = {Activate<V, TrainGate::kSilu>, Activate<V, TrainGate::kGelu>,
                       Activate<V, TrainGate::kGeluAlone>, Activate<V, TrainGate::kClamped>,
                       Activate<V, TrainGate::kSigmoid>},
          .activate_backward = {ActivateBackward<V, TrainGate::kSilu>,
                                ActivateBackward<V, TrainGate::kGelu>,
                                ActivateBackward<V, TrainGate::kGeluAlone>,
                                ActivateBackward<V, TrainGate::kClamped>,
                                ActivateBackward<V, TrainGate::kSigmoid>},
          .sigmoid = SigmoidOf<V>,
          .soft_cap = SoftCap<V>,
          .soft_cap_backward = SoftCapBackward<V>,
          .convolve = Convolve<V>,
          .convolve_backward = ConvolveBackward<V>,
          .state = State<V>,
          .state_backward = StateBackward<V>,
          .softmax = Softmax<V>,
          .softmax_backward = SoftmaxBackward<V>,
          .row_dot = RowDot<V>,
          .loss_part = LossPart<V>,
          .loss_gradient = LossGradient<V>,
          .sum_squares = SumSquares,
          .adamw = AdamW<V>};
}
