#include <cmath>

#include "kernels/math.h"
#include "kernels/reference/reference.h"
#include "tensor/half.h"

namespace bakestone::reference {

float TreeSum(const float lanes[16]) noexcept {
  float sum[16];
  for (int i = 0; i < 16; ++i) sum[i] = lanes[i];
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) sum[i] = sum[i] + sum[i + width];
  }
  return sum[0];
}

float RoundBF16(float x) noexcept {
  const float rounded = BF16ToFloat(FloatToBF16(x));
  return std::fabs(rounded) < 0x1p-50f ? 0.0f : rounded;
}

bool IsFinite(float x) noexcept { return (BitsOfFloat(x) & 0x7FFFFFFFu) < 0x7F800000u; }

void SetError(uint32_t* error, uint32_t bit) noexcept {
  __atomic_fetch_or(error, bit, __ATOMIC_RELAXED);
}

float SwiGlu(float gate, float up) noexcept { return gate / (1.0f + math::Exp(-gate)) * up; }

float Gelu(float x) noexcept {
  const float inner = std::fma(x * x * x, math::kGeluCubic, x);
  return x / (1.0f + math::Exp(inner * math::kGeluRate));
}

float QuantizeGroup(const float* x, int64_t n, int8_t* q, uint32_t* error) noexcept {
  float amax = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    finite = finite && IsFinite(x[i]);
    amax = std::fabs(x[i]) > amax ? std::fabs(x[i]) : amax;
  }
  if (!finite) SetError(error, kErrorNotFinite);
  if (!finite || amax < 0x1p-100f) {
    for (int64_t i = 0; i < n; ++i) q[i] = 0;
    return 0;
  }
  const float inverse = 127.0f / amax;
  for (int64_t i = 0; i < n; ++i) q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  return amax / 127.0f;
}

namespace {

int16_t Sum(const int8_t* q, int64_t n) {
  int sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += q[i];
  return static_cast<int16_t>(sum);
}

template <class Round>
void StoreFloat(const QuantizeArgs& args, Range rows, Round round) {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* f = args.out.f + m * args.out.stride;
    for (int64_t i = args.columns.begin; i < args.columns.end; ++i, ++x) {
      if (!IsFinite(*x)) SetError(args.error, kErrorNotFinite);
      f[i] = round(*x);
    }
    if (args.columns.end % 2 != 0) f[args.columns.end] = 0;
  }
}

}  // namespace

void QuantizeInt8x32(const QuantizeArgs& args, Range rows) noexcept {
  const int64_t blocks = args.out.k / 32;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    int8_t* q = args.out.q + m * args.out.stride;
    const float* x = args.x + m * args.x_stride;
    for (int64_t b = args.columns.begin / 32; b < args.columns.end / 32; ++b, x += 32) {
      const float scale = QuantizeGroup(x, 32, q + 32 * b, args.error);
      const int16_t sum = Sum(q + 32 * b, 32);
      args.out.scale[m * blocks + b] = scale;
      args.out.sum[m * blocks + b] = sum;
      args.out.scaled_sum[m * blocks + b] = scale * static_cast<float>(sum);
    }
  }
}

void QuantizeInt8x128(const QuantizeArgs& args, Range rows) noexcept {
  const int64_t blocks = args.out.k / 128;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    int8_t* q = args.out.q + m * args.out.stride;
    int16_t* sum = args.out.sum + m * (args.out.k / 16);
    const float* x = args.x + m * args.x_stride;
    for (int64_t b = args.columns.begin / 128; b < args.columns.end / 128; ++b, x += 128) {
      args.out.scale[m * blocks + b] = QuantizeGroup(x, 128, q + 128 * b, args.error);
      for (int g = 0; g < 8; ++g) sum[8 * b + g] = Sum(q + 128 * b + 16 * g, 16);
    }
  }
}

void QuantizeBF16(const QuantizeArgs& args, Range rows) noexcept {
  StoreFloat(args, rows, [](float x) { return RoundBF16(x); });
}

void QuantizeF32(const QuantizeArgs& args, Range rows) noexcept {
  StoreFloat(args, rows, [](float x) { return x; });
}

void RmsNorm(const RmsNormArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* y = args.y + m * args.y_stride;
    float lanes[16] = {};
    for (int64_t i = 0; i < args.k; ++i) lanes[i % 16] = std::fma(x[i], x[i], lanes[i % 16]);
    const float mean = TreeSum(lanes) / static_cast<float>(args.k);
    const float scale = 1.0f / std::sqrt(mean + args.eps);
    for (int64_t i = 0; i < args.k; ++i) y[i] = x[i] * scale * args.weight[i];
  }
}

void LayerNorm(const LayerNormArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    float* y = args.y + m * args.y_stride;
    float sums[16] = {}, squares[16] = {};
    for (int64_t i = 0; i < args.k; ++i) sums[i % 16] = sums[i % 16] + x[i];
    const float mean = TreeSum(sums) / static_cast<float>(args.k);
    for (int64_t i = 0; i < args.k; ++i) {
      const float d = x[i] - mean;
      squares[i % 16] = std::fma(d, d, squares[i % 16]);
    }
    const float variance = TreeSum(squares) / static_cast<float>(args.k);
    const float scale = 1.0f / std::sqrt(variance + args.eps);
    for (int64_t i = 0; i < args.k; ++i) {
      const float value = (x[i] - mean) * scale * args.weight[i];
      y[i] = args.bias != nullptr ? value + args.bias[i] : value;
    }
  }
}

void Rope(const RopeArgs& args, Range rows) noexcept {
  const int64_t half = args.dim / 2;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *cos = args.cos + m * half, *sin = args.sin + m * half;
    for (int64_t h = 0; h < args.heads; ++h) {
      float* x = args.x + m * args.stride + h * args.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
      }
    }
  }
}

void SwiGluRows(const BinaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *a = args.a + m * args.a_stride, *b = args.b + m * args.b_stride;
    for (int64_t i = 0; i < args.k; ++i) args.y[m * args.y_stride + i] = SwiGlu(a[i], b[i]);
  }
}

void Add(const BinaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *a = args.a + m * args.a_stride, *b = args.b + m * args.b_stride;
    for (int64_t i = 0; i < args.k; ++i) args.y[m * args.y_stride + i] = a[i] + b[i];
  }
}

namespace {

template <float (*kFunction)(float)>
void MultiplyBy(const BinaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *a = args.a + m * args.a_stride, *b = args.b + m * args.b_stride;
    for (int64_t i = 0; i < args.k; ++i) args.y[m * args.y_stride + i] = kFunction(a[i]) * b[i];
  }
}

template <float (*kFunction)(float)>
void Apply(const UnaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t i = 0; i < args.k; ++i) {
      args.y[m * args.y_stride + i] = kFunction(args.x[m * args.x_stride + i]);
    }
  }
}

}  // namespace

void GeGluRows(const BinaryArgs& args, Range rows) noexcept { MultiplyBy<Gelu>(args, rows); }
void GeluRows(const UnaryArgs& args, Range rows) noexcept { Apply<Gelu>(args, rows); }

void ErfGeGluRows(const BinaryArgs& args, Range rows) noexcept {
  MultiplyBy<math::ErfGelu>(args, rows);
}

void ErfGeluRows(const UnaryArgs& args, Range rows) noexcept { Apply<math::ErfGelu>(args, rows); }

void SigmoidRows(const UnaryArgs& args, Range rows) noexcept { Apply<math::Sigmoid>(args, rows); }

void ExpRows(const UnaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* x = args.x + m * args.x_stride;
    for (int64_t i = 0; i < args.k; ++i) {
      args.y[m * args.y_stride + i] = math::Exp(args.factor * x[i]);
    }
  }
}

void GateRows(const BinaryArgs& args, Range rows) noexcept {
  MultiplyBy<math::Sigmoid>(args, rows);
}

void ClampedSwiGluRows(const BinaryArgs& args, Range rows) noexcept {
  constexpr float kLimit = math::kClampedLimit;
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float *a = args.a + m * args.a_stride, *b = args.b + m * args.b_stride;
    for (int64_t i = 0; i < args.k; ++i) {
      const float g = a[i] < kLimit ? a[i] : kLimit;
      const float low = b[i] > -kLimit ? b[i] : -kLimit, u = low < kLimit ? low : kLimit;
      args.y[m * args.y_stride + i] = g / (1.0f + math::Exp(math::kClampedRate * g)) * (u + 1.0f);
    }
  }
}

void SoftCapRows(const UnaryArgs& args, Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    for (int64_t i = 0; i < args.k; ++i) {
      const float e = math::Exp(args.x[m * args.x_stride + i] * (2.0f / args.factor)) + 1.0f;
      args.y[m * args.y_stride + i] = args.factor - (args.factor + args.factor) / e;
    }
  }
}

void ComputeSoftmaxStats(const float* x, int64_t stride, int64_t k, SoftmaxStats* stats,
                         Range rows) noexcept {
  for (int64_t m = rows.begin; m < rows.end; ++m) {
    const float* row = x + m * stride;
    float max = row[0];
    for (int64_t i = 1; i < k; ++i) max = row[i] > max ? row[i] : max;
    max = max + 0.0f;  // -0 becomes +0, whichever of the two was found
    float lanes[16] = {};
    for (int64_t i = 0; i < k; ++i) lanes[i % 16] = lanes[i % 16] + math::Exp(row[i] - max);
    stats[m] = {max, TreeSum(lanes)};
  }
}

void Softmax(const float* x, int64_t k, SoftmaxStats stats, float* y) noexcept {
  const float inverse = 1.0f / stats.sum;
  for (int64_t i = 0; i < k; ++i) y[i] = math::Exp(x[i] - stats.max) * inverse;
}

}  // namespace bakestone::reference
