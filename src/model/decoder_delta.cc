// The gated delta rule (DeltaConfig), token after token in one order: bits do not depend on where
// steps are cut.
#include <cmath>

#include "kernels/math.h"
#include "model/decoder_pass.h"
#include "ops/delta_rule.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

// x * factor / sqrt(sum of squares + 1e-6).
void Normalize(float* x, int64_t size, float factor) {
  float sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += x[i] * x[i];
  const float scale = factor / std::sqrt(sum + 1e-6f);
  for (int64_t i = 0; i < size; ++i) x[i] *= scale;
}

}  // namespace

void DecoderPass::RunDelta(int64_t layer, MatrixView<float> qkv, MatrixView<const float> decay,
                           MatrixView<const float> rate, MatrixView<float> out) {
  const DeltaConfig& config = config_.delta;
  const int64_t dk = config.key_dim, keys = config.key_heads * dk;
  exec_.pool.ParallelFor(qkv.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < config.key_heads; ++head) {
        Normalize(qkv.Row(row) + head * dk, dk, 1.0f / std::sqrt(static_cast<float>(dk)));
        Normalize(qkv.Row(row) + keys + head * dk, dk, 1.0f);
      }
    }
  });
  const int64_t offset = (config_.taps - 1) * config.channels();
  auto* runs = arena_.Take<ops::DeltaRun>(static_cast<int64_t>(all_.runs.size()));
  for (size_t i = 0; i < all_.runs.size(); ++i) {
    runs[i] = {{all_.runs[i].row_begin, all_.runs[i].row_end},
               StateOf(layer, i) + offset,
               NextStateOf(layer, i) + offset};
  }
  ops::DeltaRule(exec_.context,
                 {.key_heads = config.key_heads,
                  .value_heads = config.value_heads,
                  .key_dim = dk,
                  .value_dim = config.value_dim,
                  .tiled = config.tiled},
                 {runs, all_.runs.size()}, qkv, decay, rate, out);
}

MatrixView<float> DecoderPass::DeltaRule(int64_t layer, MatrixView<float> x, bool only_outputs) {
  const MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
  Arena::Scope scope(arena_);
  const DeltaWeights& weights = *Layer(layer).delta;
  const DeltaConfig& config = config_.delta;
  const int64_t rows = x.rows, heads = config.value_heads, values = heads * config.value_dim;
  const MatrixView<float> normed = arena_.TakeMatrix<float>(rows, x.cols);
  const MatrixView<float> inputs = arena_.TakeMatrix<float>(rows, config.channels());
  const MatrixView<float> qkv = arena_.TakeMatrix<float>(rows, config.channels());
  const MatrixView<float> z = arena_.TakeMatrix<float>(rows, values);
  const MatrixView<float> decay = arena_.TakeMatrix<float>(rows, heads);
  const MatrixView<float> rate = arena_.TakeMatrix<float>(rows, heads);
  const MatrixView<float> mixed = arena_.TakeMatrix<float>(rows, values);
  ops::RmsNorm(exec_.context, x, Layer(layer).attention_norm, config_.norm_eps, normed);
  ProductsOf(normed,
             {{weights.qkv, inputs}, {weights.z, z}, {weights.alpha, decay}, {weights.beta, rate}},
             "delta rule input");
  Convolve(layer, inputs, weights.taps, {}, qkv);
  ops::Gate(exec_.context, qkv, qkv, qkv);
  exec_.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        const auto at = static_cast<size_t>(head);
        decay(row, head) =
            math::Exp(weights.decay[at] * math::SoftPlus(decay(row, head) + weights.dt[at]));
        rate(row, head) = math::Sigmoid(rate(row, head));
      }
    }
  });
  RunDelta(layer, qkv, decay, rate, mixed);
  ops::RmsNormGroups(exec_.context, weights.norm, config_.norm_eps, mixed);
  ops::Gate(exec_.context, z, z, z);
  exec_.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < values; ++i) mixed(row, i) *= z(row, i);
    }
  });
  AddProduct(mixed, weights.out, only_outputs, y);
  return y;
}

}  // namespace bakestone
