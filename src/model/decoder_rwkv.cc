// RWKV-7 (RwkvConfig): a layer that mixes tokens by a state of fixed size and by the token before,
// in both of its branches. Token after token in one order: bits do not depend on where steps are
// cut. A layer's state: what the first branch took of the last token, the same of the second, then
// S by head.
#include <cmath>
#include <cstring>

#include "model/decoder_pass.h"
#include "ops/delta_rule.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

// x * 1 / max(|x|, 1e-12)
void ToLengthOne(float* x, int64_t size) {
  float sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::max(std::sqrt(sum), 1e-12f);
  for (int64_t i = 0; i < size; ++i) x[i] *= scale;
}

// (x - mean) / sqrt(variance + eps) * weight + bias
void NormHead(float* x, const float* weight, const float* bias, int64_t size, float eps) {
  float mean = 0, square = 0;
  for (int64_t i = 0; i < size; ++i) mean += x[i];
  mean /= static_cast<float>(size);
  for (int64_t i = 0; i < size; ++i) square += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / std::sqrt(square / static_cast<float>(size) + eps);
  for (int64_t i = 0; i < size; ++i) x[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

template <typename F>
void ForEach(ThreadPool& pool, MatrixView<float> x, const F& f) {
  pool.ParallelFor(x.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < x.cols; ++i) x(row, i) = f(x(row, i), row, i);
    }
  });
}

}  // namespace

void DecoderPass::TokensBefore(int64_t layer, int64_t at, MatrixView<const float> x,
                               MatrixView<float> before) {
  const auto bytes = static_cast<size_t>(x.cols) * sizeof(float);
  for (size_t i = 0; i < all_.runs.size(); ++i) {
    const KvRun& run = all_.runs[i];
    std::memcpy(before.Row(run.row_begin), StateOf(layer, i) + at, bytes);
    for (int64_t row = run.row_begin + 1; row < run.row_end; ++row) {
      std::memcpy(before.Row(row), x.Row(row - 1), bytes);
    }
    std::memcpy(NextStateOf(layer, i) + at, x.Row(run.row_end - 1), bytes);
  }
}

void DecoderPass::Shift(MatrixView<const float> x, MatrixView<const float> before,
                        std::span<const float> share, MatrixView<float> out) {
  exec_.pool.ParallelFor(x.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float *now = x.Row(row), *then = before.Row(row);
      for (int64_t i = 0; i < x.cols; ++i) {
        out(row, i) = now[i] + (then[i] - now[i]) * share[static_cast<size_t>(i)];
      }
    }
  });
}

void DecoderPass::RunRwkv(int64_t layer, const RwkvRows& rows, MatrixView<float> out) {
  const int64_t offset = 2 * out.cols;
  auto* runs = arena_.Take<ops::DeltaRun>(static_cast<int64_t>(all_.runs.size()));
  for (size_t i = 0; i < all_.runs.size(); ++i) {
    runs[i] = {{all_.runs[i].row_begin, all_.runs[i].row_end},
               StateOf(layer, i) + offset,
               NextStateOf(layer, i) + offset};
  }
  ops::RwkvRule(exec_.context, config_.rwkv.head_dim, {runs, all_.runs.size()},
                {.r = rows.receptance,
                 .decay = rows.decay,
                 .k = rows.key,
                 .v = rows.value,
                 .removal = rows.removal,
                 .rate = rows.rate},
                out);
}

MatrixView<float> DecoderPass::TimeMix(int64_t layer, MatrixView<const float> x) {
  const RwkvWeights& weights = *Layer(layer).rwkv;
  const int64_t rows = x.rows, hidden = x.cols;
  const auto take = [&](int64_t cols) { return arena_.TakeMatrix<float>(rows, cols); };
  const MatrixView<float> y = take(hidden);
  Arena::Scope scope(arena_);
  const MatrixView<float> h = take(hidden), before = take(hidden), shifted = take(hidden);
  RwkvRows r = {take(hidden), take(hidden), take(hidden), take(hidden), take(hidden), take(hidden)};
  const MatrixView<float> gate = take(hidden), mix = take(hidden);
  ops::LayerNorm(exec_.context, x, Layer(layer).attention_norm, Layer(layer).attention_norm_bias,
                 config_.norm_eps, h);
  TokensBefore(layer, 0, h, before);
  const auto input = [&](RwkvInput which) {
    Shift(h, before, weights.shares[static_cast<size_t>(which)], shifted);
    return shifted;
  };
  // out(f(in x)), of what `shifted` holds.
  const auto narrow = [&](const Weight& in, const Weight& out, const auto& f,
                          MatrixView<float> to) {
    const MatrixView<float> inner = take(in.n());
    ProductsOf(shifted, {{in, inner}}, "RWKV input");
    f(inner);
    ProductsOf(inner, {{out, to}}, "RWKV inner rows");
  };
  const auto same = [](MatrixView<float>) {};
  // 1 - 2 / (1 + exp(2 x))
  const auto tanh = [&](MatrixView<float> inner) {
    ops::Exp(exec_.context, 2, inner, inner);
    ForEach(exec_.pool, inner, [](float e, int64_t, int64_t) { return 1.0f - 2.0f / (1.0f + e); });
  };
  const auto sigmoid = [&](MatrixView<float> inner) { ops::Sigmoid(exec_.context, inner, inner); };
  ProductsOf(input(RwkvInput::kReceptance), {{weights.receptance, r.receptance}}, "RWKV input");
  ProductsOf(input(RwkvInput::kKey), {{weights.key, r.key}}, "RWKV input");
  ProductsOf(input(RwkvInput::kValue), {{weights.value, r.value}}, "RWKV input");
  if (layer > 0) narrow(weights.value_in, weights.value_out, same, mix);
  input(RwkvInput::kDecay);
  narrow(weights.decay_in, weights.decay_out, tanh, r.decay);
  input(RwkvInput::kRate);
  narrow(weights.rate_in, weights.rate_out, same, r.rate);
  input(RwkvInput::kGate);
  narrow(weights.gate_in, weights.gate_out, sigmoid, gate);
  constexpr float kSlowest = -0.60653066f;  // -exp(-1 / 2)
  sigmoid(r.decay);
  ops::Exp(exec_.context, kSlowest, r.decay, r.decay);
  sigmoid(r.rate);
  if (layer == 0) {
    for (int64_t row = 0; row < rows; ++row) {
      std::copy_n(r.value.Row(row), hidden, first_value_.Row(row));
    }
  } else {
    sigmoid(mix);
    ForEach(exec_.pool, r.value, [&](float value, int64_t row, int64_t i) {
      return value + (first_value_(row, i) - value) * mix(row, i);
    });
  }
  SplitKeys(weights, r);
  RunRwkv(layer, r, y);
  FinishHeads(weights, r, gate, y);
  return y;
}

void DecoderPass::SplitKeys(const RwkvWeights& weights, const RwkvRows& rows) {
  const int64_t dim = config_.rwkv.head_dim;
  exec_.pool.ParallelFor(rows.key.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float *k = rows.key.Row(row), *kk = rows.removal.Row(row), *a = rows.rate.Row(row);
      for (int64_t i = 0; i < rows.key.cols; ++i) {
        const auto at = static_cast<size_t>(i);
        kk[i] = k[i] * weights.key_scale[at];
        k[i] += k[i] * (a[i] - 1.0f) * weights.key_rate[at];
      }
      for (int64_t i = 0; i < rows.key.cols; i += dim) ToLengthOne(kk + i, dim);
    }
  });
}

void DecoderPass::FinishHeads(const RwkvWeights& weights, const RwkvRows& rows,
                              MatrixView<const float> gate, MatrixView<float> y) {
  const int64_t dim = config_.rwkv.head_dim;
  const float eps = static_cast<float>(dim) * config_.norm_eps;
  exec_.pool.ParallelFor(y.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t at = 0; at < y.cols; at += dim) {
        const float *r = rows.receptance.Row(row) + at, *k = rows.key.Row(row) + at,
                    *v = rows.value.Row(row) + at;
        const auto channel = static_cast<size_t>(at);
        float *out = y.Row(row) + at, bonus = 0;
        NormHead(out, weights.norm.data() + channel, weights.norm_bias.data() + channel, dim, eps);
        for (int64_t i = 0; i < dim; ++i) {
          bonus += r[i] * k[i] * weights.bonus[channel + static_cast<size_t>(i)];
        }
        for (int64_t i = 0; i < dim; ++i) out[i] = (out[i] + bonus * v[i]) * gate(row, at + i);
      }
    }
  });
}

MatrixView<float> DecoderPass::RwkvLayer(int64_t layer, MatrixView<float> x, bool only_outputs) {
  const LayerWeights& weights = Layer(layer);
  if (layer == 0) first_value_ = arena_.TakeMatrix<float>(x.rows, x.cols);
  {
    Arena::Scope scope(arena_);
    AddProduct(TimeMix(layer, x), weights.rwkv->output, /*only_outputs=*/false, x);
  }
  const RowSet& set = only_outputs ? out_ : all_;
  const MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
  Arena::Scope scope(arena_);
  const MatrixView<float> h = arena_.TakeMatrix<float>(x.rows, x.cols);
  const MatrixView<float> before = arena_.TakeMatrix<float>(x.rows, x.cols);
  ops::LayerNorm(exec_.context, x, weights.mlp_norm, weights.mlp_norm_bias, config_.norm_eps, h);
  TokensBefore(layer, x.cols, h, before);
  if (set.rows == 0) return y;
  Shift(h, before, weights.rwkv->mlp_share, before);
  const MatrixView<float> in = only_outputs ? GatherOutputs(before) : before;
  const MatrixView<float> inner = arena_.TakeMatrix<float>(set.rows, config_.ffn_width(layer));
  const SiteOutput up = {Site::kUp, inner}, down = {Site::kDown, y};
  ops::Quantize(exec_.context, in, FormsFor(layer, set, {&up, 1}).span(), exec_.scratch.rows,
                "MLP input");
  Products(layer, set, {&up, 1}, Epilogue::kStore);
  ForEach(exec_.pool, inner,
          [](float value, int64_t, int64_t) { return value > 0 ? value * value : 0.0f; });
  ops::Quantize(exec_.context, inner, FormsFor(layer, set, {&down, 1}).span(), exec_.scratch.rows,
                "MLP activation");
  Products(layer, set, {&down, 1}, Epilogue::kAdd);
  return y;
}

}  // namespace bakestone
