#include "model/pooled_heads.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/math.h"
#include "ops/linear.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

float Tanh(float x) {
  const auto magnitude = static_cast<double>(x < 0 ? -x : x);
  const double e = math::Exp64(-2 * std::min(magnitude, 20.0)), y = (1 - e) / (1 + e);
  return static_cast<float>(x < 0 ? -y : y);
}

void Product(Exec& exec, const Weight& weight, MatrixView<const float> x, MatrixView<float> y,
             const char* what) {
  const ActType form = ops::ActTypeFor(weight.panel().type, exec.precision);
  ops::Quantize(exec.context, x, {&form, 1}, exec.scratch.rows, what);
  const ops::Product product = {.panel = weight.panel(), .bias = weight.bias(), .y = y};
  ops::MatMul(exec.context, exec.scratch.rows, {&product, 1}, exec.precision);
}

template <class Function>
void ForEach(MatrixView<float> x, const Function& function) {
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t i = 0; i < x.cols; ++i) {
      x(row, i) = function(x(row, i));
    }
  }
}

}  // namespace

void ApplyDense(Exec& exec, const ModelConfig& config, const Weights& weights,
                MatrixView<const float> pooled, MatrixView<float> out) {
  const std::vector<DenseConfig>& layers = config.encoder.dense;
  BAKESTONE_CHECK(!layers.empty() && out.rows == pooled.rows &&
                  out.cols == config.embedding_width());
  Arena::Scope scope(exec.scratch.arena);
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool last = i + 1 == layers.size();
    const MatrixView<float> y =
        last ? out : exec.scratch.arena.TakeMatrix<float>(pooled.rows, layers[i].width);
    Product(exec, weights.dense[i], pooled, y, "input of a dense layer");
    if (layers[i].tanh) ForEach(y, Tanh);
    pooled = y;
  }
}

void Classify(Exec& exec, const ModelConfig& config, const Weights& weights,
              MatrixView<const float> pooled, MatrixView<float> logits) {
  const ClassifierConfig& head = config.classifier;
  BAKESTONE_CHECK(head.labels > 0 && logits.rows == pooled.rows && logits.cols == head.labels);
  Arena::Scope scope(exec.scratch.arena);
  const MatrixView<float> x = exec.scratch.arena.TakeMatrix<float>(pooled.rows, config.hidden_dim);
  Product(exec, weights.classifier.dense, pooled, x, "input of the head");
  ForEach(x, head.activation == ClassifierConfig::Activation::kGelu ? math::ErfGelu : Tanh);
  if (!weights.classifier.norm.empty()) {
    ops::LayerNorm(exec.context, x, weights.classifier.norm, weights.classifier.norm_bias,
                   config.norm_eps, x);
  }
  Product(exec, weights.classifier.out, x, logits, "input of the labels");
}

}  // namespace bakestone
