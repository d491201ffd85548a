#include "ops/rows.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/math.h"

namespace bakestone::ops {
namespace {

int64_t RowGrain(const Context& context, int64_t rows) {
  return std::max<int64_t>(1, std::min<int64_t>(8, rows / (2 * context.pool().num_threads())));
}

template <class Args>
void ForRows(Context& context, int64_t rows, const Args& args,
             void (*kernel)(const Args&, Range) noexcept) {
  context.pool().ParallelFor(rows, RowGrain(context, rows),
                             [&](int64_t begin, int64_t end, int) { kernel(args, {begin, end}); });
}

void Map(Context& context, MatrixView<const float> x, MatrixView<float> y, float factor,
         void (*kernel)(const UnaryArgs&, Range) noexcept) {
  BAKESTONE_CHECK(y.rows == x.rows && y.cols == x.cols);
  const UnaryArgs args{x.data, y.data, x.stride, y.stride, x.cols, factor};
  ForRows(context, x.rows, args, kernel);
}

void Combine(Context& context, MatrixView<const float> a, MatrixView<const float> b,
             MatrixView<float> y, void (*kernel)(const BinaryArgs&, Range) noexcept) {
  BAKESTONE_CHECK(a.rows == b.rows && a.cols == b.cols);
  BAKESTONE_CHECK(y.rows == a.rows && y.cols == a.cols);
  const BinaryArgs args{a.data, b.data, y.data, a.stride, b.stride, y.stride, y.cols};
  ForRows(context, y.rows, args, kernel);
}

}  // namespace

void RmsNorm(Context& context, MatrixView<const float> x, std::span<const float> weight, float eps,
             MatrixView<float> y) {
  BAKESTONE_CHECK(static_cast<int64_t>(weight.size()) == x.cols);
  BAKESTONE_CHECK(y.rows == x.rows && y.cols == x.cols);
  const RmsNormArgs args{x.data, x.stride, weight.data(), eps, y.data, y.stride, x.cols};
  ForRows(context, x.rows, args, context.serve().rows.rms_norm);
}

void LayerNorm(Context& context, MatrixView<const float> x, std::span<const float> weight,
               std::span<const float> bias, float eps, MatrixView<float> y) {
  BAKESTONE_CHECK(static_cast<int64_t>(weight.size()) == x.cols);
  BAKESTONE_CHECK(bias.empty() || bias.size() == weight.size());
  BAKESTONE_CHECK(y.rows == x.rows && y.cols == x.cols);
  const LayerNormArgs args{x.data, x.stride, weight.data(), bias.empty() ? nullptr : bias.data(),
                           eps,    y.data,   y.stride,      x.cols};
  ForRows(context, x.rows, args, context.serve().rows.layer_norm);
}

void RmsNormGroups(Context& context, std::span<const float> weight, float eps,
                   MatrixView<float> x) {
  const auto width = static_cast<int64_t>(weight.size());
  BAKESTONE_CHECK(width > 0 && x.cols % width == 0);
  const auto kernel = context.serve().rows.rms_norm;
  context.pool().ParallelFor(
      x.rows, RowGrain(context, x.rows), [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
          kernel({x.Row(row), width, weight.data(), eps, x.Row(row), width, width},
                 {0, x.cols / width});
        }
      });
}

void Scale(Context& context, float factor, MatrixView<float> x) {
  context.pool().ParallelFor(x.rows, RowGrain(context, x.rows),
                             [&](int64_t begin, int64_t end, int) {
                               for (int64_t row = begin; row < end; ++row) {
                                 for (int64_t i = 0; i < x.cols; ++i) x.Row(row)[i] *= factor;
                               }
                             });
}

void SoftCap(Context& context, float cap, MatrixView<float> x) {
  Map(context, x, x, cap, context.serve().rows.soft_cap);
}

void SwiGlu(Context& context, MatrixView<const float> gate, MatrixView<const float> up,
            MatrixView<float> y) {
  Combine(context, gate, up, y, context.serve().rows.swiglu);
}

void ClampedSwiGlu(Context& context, MatrixView<const float> gate, MatrixView<const float> up,
                   MatrixView<float> y) {
  Combine(context, gate, up, y, context.serve().rows.clamped_swiglu);
}

void Gate(Context& context, MatrixView<const float> gate, MatrixView<const float> x,
          MatrixView<float> y) {
  Combine(context, gate, x, y, context.serve().rows.gate);
}

void Sigmoid(Context& context, MatrixView<const float> x, MatrixView<float> y) {
  Map(context, x, y, 0, context.serve().rows.sigmoid);
}

void Exp(Context& context, float factor, MatrixView<const float> x, MatrixView<float> y) {
  Map(context, x, y, factor, context.serve().rows.exp);
}

void Add(Context& context, MatrixView<const float> x, MatrixView<float> y) {
  Combine(context, y, x, y, context.serve().rows.add);
}

RopeTable::RopeTable(const RopeParameters& parameters)
    : dim_(parameters.dim), magnitude_(parameters.magnitude) {
  BAKESTONE_CHECK(dim_ > 0 && dim_ % 2 == 0 && parameters.theta > 0 && parameters.linear_scale > 0);
  const int64_t half = dim_ / 2;
  const auto frequencies = [&](std::span<const float> factors) {
    BAKESTONE_CHECK(factors.empty() || static_cast<int64_t>(factors.size()) == half);
    std::vector<double> all;
    for (int64_t i = 0; i < half; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(dim_);
      double frequency = math::Pow(parameters.theta, exponent) / parameters.linear_scale;
      if (!factors.empty()) frequency /= static_cast<double>(factors[static_cast<size_t>(i)]);
      all.push_back(frequency);
    }
    return all;
  };
  frequency_ = frequencies(parameters.frequency_factors);
  if (!parameters.far_factors.empty()) far_frequency_ = frequencies(parameters.far_factors);
}

void RopeTable::Set(std::span<const int32_t> positions, std::span<const uint8_t> far) {
  BAKESTONE_CHECK(far.empty() || (far.size() == positions.size() && !far_frequency_.empty()));
  const size_t half = frequency_.size();
  rows_ = static_cast<int64_t>(positions.size());
  cos_.resize(positions.size() * half);
  sin_.resize(positions.size() * half);
  for (size_t row = 0; row < positions.size(); ++row) {
    BAKESTONE_CHECK(positions[row] >= 0);
    const std::vector<double>& frequency =
        !far.empty() && far[row] != 0 ? far_frequency_ : frequency_;
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(positions[row]) * frequency[i];
      cos_[row * half + i] = static_cast<float>(math::Cos(angle) * magnitude_);
      sin_[row * half + i] = static_cast<float>(math::Sin(angle) * magnitude_);
    }
  }
}

void Rope(Context& context, const RopeTable& table, MatrixView<float> x, int64_t head_dim) {
  BAKESTONE_CHECK(x.rows == table.rows() && x.cols % head_dim == 0 && table.dim() <= head_dim);
  const RopeArgs args{x.data,      x.stride,    x.cols / head_dim, head_dim,
                      table.dim(), table.cos(), table.sin()};
  ForRows(context, x.rows, args, context.serve().rows.rope);
}

void ComputeSoftmaxStats(Context& context, MatrixView<const float> logits,
                         std::span<SoftmaxStats> stats) {
  BAKESTONE_CHECK(static_cast<int64_t>(stats.size()) == logits.rows && logits.cols > 0);
  context.pool().ParallelFor(logits.rows, 1, [&](int64_t begin, int64_t end, int) {
    context.serve().rows.softmax_stats(logits.data, logits.stride, logits.cols, stats.data(),
                                       {begin, end});
  });
}

double LogSumExp(SoftmaxStats stats) {
  return static_cast<double>(stats.max) + math::Log(static_cast<double>(stats.sum));
}

void Softmax(Context& context, std::span<const float> logits, SoftmaxStats stats,
             std::span<float> probabilities) {
  BAKESTONE_CHECK(logits.size() == probabilities.size());
  context.serve().rows.softmax(logits.data(), static_cast<int64_t>(logits.size()), stats,
                               probabilities.data());
}

}  // namespace bakestone::ops
