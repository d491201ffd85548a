// Ops on rows of f32: norm, rotary embedding, SwiGLU, residual, softmax statistics.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/context.h"
#include "tensor/matrix_view.h"

namespace bakestone::ops {

// y = x / sqrt(mean(x^2) + eps) * weight by row. y may be x.
void RmsNorm(Context& context, MatrixView<const float> x, std::span<const float> weight, float eps,
             MatrixView<float> y);

// y = (x - mean) / sqrt(variance + eps) * weight + bias by row; bias [cols] or empty. y may be x.
void LayerNorm(Context& context, MatrixView<const float> x, std::span<const float> weight,
               std::span<const float> bias, float eps, MatrixView<float> y);

// RMS norm, in place, of each group of weight.size() channels of a row by itself: a head, or the
// row.
void RmsNormGroups(Context& context, std::span<const float> weight, float eps, MatrixView<float> x);

// x *= factor.
void Scale(Context& context, float factor, MatrixView<float> x);

// x = cap * tanh(x / cap).
void SoftCap(Context& context, float cap, MatrixView<float> x);

// y = a / (1 + exp(-a)) * b. y may be a or b.
void SwiGlu(Context& context, MatrixView<const float> gate, MatrixView<const float> up,
            MatrixView<float> y);

// y = 1 / (1 + exp(-x)). y may be x.
void Sigmoid(Context& context, MatrixView<const float> x, MatrixView<float> y);

// y = exp(factor * x). y may be x.
void Exp(Context& context, float factor, MatrixView<const float> x, MatrixView<float> y);

// y = x * (1 / (1 + exp(-gate))). y may be gate or x.
void Gate(Context& context, MatrixView<const float> gate, MatrixView<const float> x,
          MatrixView<float> y);

// y = (u + 1) g / (1 + exp(-1.702 g)), g = min(gate, 7), u = up within [-7, 7]. y may be gate or
// up.
void ClampedSwiGlu(Context& context, MatrixView<const float> gate, MatrixView<const float> up,
                   MatrixView<float> y);

// y += x.
void Add(Context& context, MatrixView<const float> x, MatrixView<float> y);

struct RopeParameters {
  double theta = 10000;
  int64_t dim = 0;                           // rotated channels of a head, even
  double linear_scale = 1;                   // positions are divided by this
  std::span<const float> frequency_factors;  // [dim / 2] divisors, or empty
  double magnitude = 1;                      // cosines and sines are multiplied by this
  std::span<const float> far_factors;        // [dim / 2] divisors of rows that are far, or empty
};

// Cosines and sines of a step's positions: angles in double with our own pow, sin and cos, rounded
// once to f32. Immutable apart from Set.
class RopeTable {
 public:
  explicit RopeTable(const RopeParameters& parameters);
  // Each >= 0; once a step, shared by all layers. far: 1 where far_factors are to be used; empty:
  // nowhere.
  void Set(std::span<const int32_t> positions, std::span<const uint8_t> far = {});
  int64_t rows() const noexcept { return rows_; }
  int64_t dim() const noexcept { return dim_; }
  const float* cos() const noexcept { return cos_.data(); }  // [rows, dim / 2]
  const float* sin() const noexcept { return sin_.data(); }

 private:
  int64_t rows_ = 0, dim_;
  double magnitude_;
  std::vector<double> frequency_, far_frequency_;  // [dim / 2]
  std::vector<float> cos_, sin_;
};

// Turns x [table.rows(), heads * head_dim] in place (Hugging Face's half-split channel order).
void Rope(Context& context, const RopeTable& table, MatrixView<float> x, int64_t head_dim);

// stats [rows] of logits [rows, vocab]: log-sum-exp is LogSumExp(stats).
void ComputeSoftmaxStats(Context& context, MatrixView<const float> logits,
                         std::span<SoftmaxStats> stats);
double LogSumExp(SoftmaxStats stats);  // max + log(sum), in double with our own log
// probabilities = exp(logits - max) / sum of one row; may be in place.
void Softmax(Context& context, std::span<const float> logits, SoftmaxStats stats,
             std::span<float> probabilities);

}  // namespace bakestone::ops
