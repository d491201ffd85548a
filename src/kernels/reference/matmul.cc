// Matrix products, one output at a time. Rows of x go in groups so that a weight block is read once
// for the group; the arithmetic of an output does not know about its group.
#include <cmath>
#include <cstring>

#include "kernels/reference/panel_reader.h"
#include "kernels/reference/reference.h"
#include "tensor/half.h"

namespace bakestone::reference {
namespace {

constexpr int64_t kGroup = 32;

// Rows [m0, m0 + count) of x times one row of a panel.
struct Dot {
  const Activations& x;
  const Panel& panel;
  int64_t row, m0, count;
};

int32_t IntegerDot(const int32_t* q, const int8_t* a, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += q[i] * a[i];
  return sum;
}

// Blocks of 32: A = fma(f32(c) * d, da, A), B = fma(m, sa, B); A + B.
void DotBlocks32(const Dot& dot, float* r) {
  const int64_t blocks = dot.x.k / 32;
  const bool has_min = HasMin(dot.panel.type);
  float sums[kGroup] = {}, mins[kGroup] = {};
  for (int64_t b = 0; b < blocks; ++b) {
    const Block32 w = ReadBlock32(dot.panel, dot.row, b);
    for (int64_t m = 0; m < dot.count; ++m) {
      const int64_t row = dot.m0 + m;
      const int32_t c = IntegerDot(w.q, dot.x.q + row * dot.x.stride + 32 * b, 32);
      const float scale = dot.x.scale[row * blocks + b];
      sums[m] = std::fma(static_cast<float>(c) * w.d, scale, sums[m]);
      if (has_min) mins[m] = std::fma(w.m, dot.x.scaled_sum[row * blocks + b], mins[m]);
    }
  }
  for (int64_t m = 0; m < dot.count; ++m) r[m] = has_min ? sums[m] + mins[m] : sums[m];
}

// Super-blocks, per 128: A = fma(f32(I1) * d, da, A), B = fma(f32(I2) * dmin, da, B); A - B.
void DotSuperBlocks(const Dot& dot, float* r) {
  const int64_t halves = dot.x.k / 128;
  const bool has_min = HasMin(dot.panel.type);
  float sums[kGroup] = {}, mins[kGroup] = {};
  for (int64_t b = 0; b < dot.x.k / 256; ++b) {
    const SuperBlock w = ReadSuperBlock(dot.panel, dot.row, b);
    for (int64_t m = 0; m < dot.count; ++m) {
      const int64_t row = dot.m0 + m;
      const int8_t* a = dot.x.q + row * dot.x.stride + 256 * b;
      const int16_t* sum = dot.x.sum + row * (dot.x.k / 16) + 16 * b;
      for (int half = 0; half < 2; ++half) {
        int32_t i1 = 0, i2 = 0;
        for (int g = 8 * half; g < 8 * half + 8; ++g) {
          i1 += w.scale[g] * IntegerDot(w.q + 16 * g, a + 16 * g, 16);
          i2 += w.min[g] * sum[g];
        }
        const float scale = dot.x.scale[row * halves + 2 * b + half];
        sums[m] = std::fma(static_cast<float>(i1) * w.d, scale, sums[m]);
        if (has_min) mins[m] = std::fma(static_cast<float>(i2) * w.dmin, scale, mins[m]);
      }
    }
  }
  for (int64_t m = 0; m < dot.count; ++m) r[m] = has_min ? sums[m] - mins[m] : sums[m];
}

// Pair order: per 32 of k an even and an odd chain from 0, then A += even + odd. k even; weight(i)
// is that of x[i].
template <class Weight>
float PairOrder(const Weight& weight, const float* x, int64_t k) {
  float sum = 0;
  for (int64_t k0 = 0; k0 < k; k0 += 32) {
    const int64_t k1 = k0 + 32 < k ? k0 + 32 : k;
    float even = 0, odd = 0;
    for (int64_t i = k0; i < k1; i += 2) {
      even = std::fma(weight(i), x[i], even);
      odd = std::fma(weight(i + 1), x[i + 1], odd);
    }
    sum += even + odd;
  }
  return sum;
}

void DotFloat(const Dot& dot, const float* w, float* r) {
  const int64_t k = dot.x.k + dot.x.k % 2;
  for (int64_t m = 0; m < dot.count; ++m) {
    r[m] = PairOrder([w](int64_t i) { return w[i]; }, dot.x.f + (dot.m0 + m) * dot.x.stride, k);
  }
}

// Lane `lane` of a strip of bf16 that is `lanes` wide, times x.
float PlainDot(const uint8_t* strip, int64_t lanes, int64_t lane, const float* x, int64_t k) {
  const auto weight = [=](int64_t i) {
    uint16_t bits;
    std::memcpy(&bits, strip + ((i / 2 * lanes + lane) * 2 + i % 2) * 2, 2);
    return BF16ToFloat(bits);
  };
  return PairOrder(weight, x, k + k % 2);
}

// One panel row as floats, padded to even.
void FloatRow(const Panel& panel, int64_t row, bool flush, float* w) {
  DequantizeRow(panel, row, 0, panel.k, w);
  if (panel.k % 2 != 0) w[panel.k] = 0;
  if (!flush) return;
  for (int64_t k = 0; k < panel.k; ++k) w[k] = RoundBF16(w[k]);
}

using DotFunction = void (*)(const Dot&, float* scratch, float* r);

void ServeDot(const Dot& dot, float* scratch, float* r) {
  switch (ActTypeOf(dot.panel.type)) {
    case ActType::kInt8x32:
      return DotBlocks32(dot, r);
    case ActType::kInt8x128:
      return DotSuperBlocks(dot, r);
    default:
      FloatRow(dot.panel, dot.row, dot.panel.type == PanelType::kBF16, scratch);
      return DotFloat(dot, scratch, r);
  }
}

void ExactDot(const Dot& dot, float* scratch, float* r) {
  FloatRow(dot.panel, dot.row, false, scratch);
  DotFloat(dot, scratch, r);
}

void Finish(const MatMulArgs& args, int64_t row, const Dot& dot, const float* r, const float* up) {
  for (int64_t m = 0; m < dot.count; ++m) {
    float* y = args.y + (dot.m0 + m) * args.y_stride + row;
    const float value = args.bias != nullptr ? r[m] + args.bias[row] : r[m];
    switch (args.epilogue) {
      case Epilogue::kStore:
        *y = value;
        break;
      case Epilogue::kAdd:
        *y = *y + value;
        break;
      case Epilogue::kAddScaled:
        *y = std::fma(args.scale, value, *y);
        break;
      case Epilogue::kSwiGlu:
        *y = SwiGlu(value, up[m]);
        break;
    }
  }
}

void Run(const MatMulArgs& args, Range strips, float* scratch, DotFunction function) {
  const int64_t end =
      strips.end * kStripRows < args.panel.n ? strips.end * kStripRows : args.panel.n;
  for (int64_t row = strips.begin * kStripRows; row < end; ++row) {
    for (int64_t m0 = 0; m0 < args.x.rows; m0 += kGroup) {
      const int64_t count = args.x.rows - m0 < kGroup ? args.x.rows - m0 : kGroup;
      float r[kGroup], up[kGroup];
      const Dot dot{args.x, args.panel, row, m0, count};
      function(dot, scratch, r);
      if (args.epilogue == Epilogue::kSwiGlu) {
        function({args.x, args.up, row, m0, count}, scratch, up);
      }
      Finish(args, row, dot, r, up);
    }
  }
}

}  // namespace

void MatMul(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  Run(args, strips, static_cast<float*>(scratch), ServeDot);
}

void MatMulExact(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  Run(args, strips, static_cast<float*>(scratch), ExactDot);
}

void AdapterRow(const AdapterRowArgs& args, void* scratch) noexcept {
  const Activations& x = args.x;
  const int64_t rank = args.h.k;
  float* inner = static_cast<float*>(scratch);
  for (int64_t r = 0; r < rank; ++r) {
    const int64_t strip = r / kStripRows;
    const int64_t lanes = (strip + 1) * kStripRows <= rank ? kStripRows : NarrowLanes(rank);
    inner[r] = PlainDot(args.a + strip * StripBytes(PanelType::kBF16, x.k), lanes, r % kStripRows,
                        x.f, x.k);
  }
  (x.type == ActType::kBF16 ? QuantizeBF16 : QuantizeF32)(
      {inner, rank, args.h, {0, rank}, args.error}, {0, 1});
}

void DequantizeStrip(const Panel& panel, int64_t strip, int64_t k0, int64_t k1,
                     float* out) noexcept {
  const int64_t block = PanelShapeOf(panel.type).block == 256 ? 256 : 32;
  for (int64_t k = k0; k < k1; k += block) {
    const int64_t end = k + block < k1 ? k + block : k1;
    for (int64_t lane = 0; lane < kStripRows; ++lane) {
      float row[256];
      DequantizeRow(panel, strip * kStripRows + lane, k, end, row);
      for (int64_t i = k; i < end; ++i) out[(i - k0) * kStripRows + lane] = row[i - k];
    }
  }
}

void DequantizeRows(const Panel& panel, const int32_t* rows, int64_t count, float* out,
                    int64_t stride) noexcept {
  for (int64_t i = 0; i < count; ++i) DequantizeRow(panel, rows[i], 0, panel.k, out + i * stride);
}

}  // namespace bakestone::reference
