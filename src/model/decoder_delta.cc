// The gated delta rule (DeltaConfig), token after token in one order: bits do not depend on where steps are cut.
#include <cmath>

#include "kernels/math.h"
#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

// log(1 + exp(x)).
float SoftPlus(float x) {
  return x > 20 ? x : static_cast<float>(math::Log(1 + math::Exp64(static_cast<double>(std::max(x, -80.0f)))));
}

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
  const int64_t heads = config.value_heads, dk = config.key_dim, dv = config.value_dim, keys = config.key_heads * dk;
  exec_.pool.ParallelFor(qkv.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < config.key_heads; ++head) {
        Normalize(qkv.Row(row) + head * dk, dk, 1.0f / std::sqrt(static_cast<float>(dk)));
        Normalize(qkv.Row(row) + keys + head * dk, dk, 1.0f);
      }
    }
  });
  const auto units = static_cast<int64_t>(all_.runs.size()) * heads;
  exec_.pool.ParallelFor(units, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> change(static_cast<size_t>(dv));
    for (int64_t unit = begin; unit < end; ++unit) {
      const auto run = static_cast<size_t>(unit / heads);
      const int64_t head = unit % heads, offset = (config_.taps - 1) * config.channels() + head * dk * dv;
      const int64_t key_head = config.tiled ? head % config.key_heads : head / (heads / config.key_heads);
      float* state = NextStateOf(layer, run) + offset;
      std::copy_n(StateOf(layer, run) + offset, dk * dv, state);
      for (int64_t row = all_.runs[run].row_begin; row < all_.runs[run].row_end; ++row) {
        const float *q = qkv.Row(row) + key_head * dk, *k = q + keys, *v = qkv.Row(row) + 2 * keys + head * dv;
        const float d = decay(row, head), r = rate(row, head);
        float* y = out.Row(row) + head * dv;
        std::fill(change.begin(), change.end(), 0.0f);
        for (int64_t i = 0; i < dk; ++i) {
          float* s = state + i * dv;
          for (int64_t j = 0; j < dv; ++j) {
            s[j] *= d;
            change[static_cast<size_t>(j)] += k[i] * s[j];
          }
        }
        for (int64_t j = 0; j < dv; ++j) change[static_cast<size_t>(j)] = r * (v[j] - change[static_cast<size_t>(j)]);
        std::fill_n(y, dv, 0.0f);
        for (int64_t i = 0; i < dk; ++i) {
          float* s = state + i * dv;
          for (int64_t j = 0; j < dv; ++j) {
            s[j] += k[i] * change[static_cast<size_t>(j)];
            y[j] += q[i] * s[j];
          }
        }
      }
    }
  });
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
  ProductsOf(normed, {{weights.qkv, inputs}, {weights.z, z}, {weights.alpha, decay}, {weights.beta, rate}},
             "delta rule input");
  Convolve(layer, inputs, weights.taps, {}, qkv);
  exec_.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < qkv.cols; ++i) qkv(row, i) *= math::Sigmoid(qkv(row, i));
      for (int64_t head = 0; head < heads; ++head) {
        const auto at = static_cast<size_t>(head);
        decay(row, head) = math::Exp(weights.decay[at] * SoftPlus(decay(row, head) + weights.dt[at]));
        rate(row, head) = math::Sigmoid(rate(row, head));
      }
    }
  });
  RunDelta(layer, qkv, decay, rate, mixed);
  ops::RmsNormGroups(exec_.context, weights.norm, config_.norm_eps, mixed);
  exec_.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < values; ++i) mixed(row, i) *= z(row, i) * math::Sigmoid(z(row, i));
    }
  });
  AddProduct(mixed, weights.out, only_outputs, y);
  return y;
}

}  // namespace bakestone
