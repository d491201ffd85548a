// The gated delta rule in the training pass (DeltaConfig, model/decoder_delta.cc). Its matrices are
// frozen: gradients go through it. With decay d and rate r of a head, its state is that of
// ops/train_state.h with a = k, b = -r d k, w = d and values r v.
//
// Kept per row, in bf16: what the convolution takes, z, and what heads give, over its rms; alpha
// and beta in f32. The rest is made again.
#include <cmath>

#include "kernels/math.h"
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"
#include "ops/train_state.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr float kLengthEps = 1e-6f;

}  // namespace

ops::TrainStateShape TrainLayer::DeltaShape(const At& at) const {
  const DeltaConfig& config = config_.delta;
  return {.rows = at.rows(),
          .heads = config.value_heads,
          .key_dim = config.key_dim,
          .value_dim = config.value_dim,
          .units = config.key_heads,
          .tiled = config.tiled,
          .document_begins = at.batch.document_begins};
}

ops::TrainConvolution TrainLayer::DeltaConvolution(const At& at) const {
  return {.taps = at.source().layer(at.layer).delta->taps.data(),
          .bias = nullptr,
          .count = config_.taps,
          .rows = at.rows(),
          .channels = config_.delta.channels(),
          .document_begins = at.batch.document_begins};
}

// mixed_ [T, channels]: silu of the convolution, queries and keys by head over their lengths.
// lengths_ [T, 2 * key_heads]: 1 / length. convolved_: before silu.
void TrainLayer::DeltaInputs(const At& at, const LayerSaved& saved) {
  const PhaseTimer timer(phases.rows);
  const DeltaConfig& config = config_.delta;
  const int64_t channels = config.channels(), dim = config.key_dim, heads = 2 * config.key_heads;
  ops::TrainConvolve(kernels_, pool_, DeltaConvolution(at), saved.state_in.data(), channels,
                     convolved_.data());
  pool_.ParallelFor(at.rows(), kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = convolved_.data() + row * channels;
      float* to = mixed_.data() + row * channels;
      kernels_.sigmoid(from, to, channels);
      for (int64_t i = 0; i < channels; ++i) to[i] *= from[i];
      for (int64_t head = 0; head < heads; ++head) {
        float* x = to + head * dim;
        float squares = 0;
        for (int64_t i = 0; i < dim; ++i) squares += x[i] * x[i];
        const float inverse = 1.0f / std::sqrt(squares + kLengthEps);
        lengths_[row * heads + head] = inverse;
        for (int64_t i = 0; i < dim; ++i) x[i] *= inverse;
      }
    }
  });
}

TrainLayer::DeltaGate TrainLayer::DeltaGateOf(const At& at, const LayerSaved& saved, int64_t row,
                                              int64_t head) const {
  const DeltaWeights& weights = *at.source().layer(at.layer).delta;
  const int64_t heads = config_.delta.value_heads;
  const float* own = saved.state_rates.data() + row * 2 * heads + head;
  const auto index = static_cast<size_t>(head);
  const float inner = own[0] + weights.dt[index];
  return {.decay = math::Exp(weights.decay[index] * math::SoftPlus(inner)),
          .decay_slope = weights.decay[index] * math::Sigmoid(inner),
          .rate = math::Sigmoid(own[heads])};
}

ops::TrainState::Fill TrainLayer::DeltaFill(const At& at, const LayerSaved& saved) const {
  const DeltaConfig& config = config_.delta;
  const int64_t dim = config.key_dim, keys = config.key_heads * dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  return [this, &at, &saved, &config, dim, keys, scale](int64_t row, int64_t head,
                                                        const ops::StateRow& to) {
    const float* own = mixed_.data() + row * config.channels();
    const float *q = own + KeyHeadOf(head) * dim, *k = q + keys,
                *v = own + 2 * keys + head * config.value_dim;
    const DeltaGate gate = DeltaGateOf(at, saved, row, head);
    const float share = -gate.rate * gate.decay;
    for (int64_t i = 0; i < dim; ++i) {
      to.q[i] = q[i] * scale;
      to.k[i] = to.a[i] = k[i];
      to.b[i] = share * k[i];
      to.w[i] = gate.decay;
    }
    for (int64_t i = 0; i < config.value_dim; ++i) to.v[i] = gate.rate * v[i];
  };
}

int64_t TrainLayer::KeyHeadOf(int64_t head) const {
  const DeltaConfig& config = config_.delta;
  return config.tiled ? head % config.key_heads : head / (config.value_heads / config.key_heads);
}

void TrainLayer::DeltaForward(const At& at, float* x, LayerSaved& saved) {
  const DeltaConfig& config = config_.delta;
  const int64_t rows = at.rows(), heads = config.value_heads, values = heads * config.value_dim;
  const uint16_t* input = BranchInput(x, AttentionNorm(at), rows, saved.y_attention.data(),
                                      saved.inverse_attention.data());
  Frozen(at, FrozenSite::kDeltaQkv, {input, saved.state_in.data(), TrainStore::kBF16});
  Frozen(at, FrozenSite::kDeltaZ, {input, saved.state_gate.data(), TrainStore::kBF16});
  float* rates = saved.state_rates.data();
  Frozen(at, FrozenSite::kDeltaAlpha,
         {.x = input, .out = rates, .store = TrainStore::kF32, .out_stride = 2 * heads});
  Frozen(at, FrozenSite::kDeltaBeta,
         {.x = input, .out = rates + heads, .store = TrainStore::kF32, .out_stride = 2 * heads});
  DeltaInputs(at, saved);
  {
    const PhaseTimer timer(phases.attention);
    state_.Forward(DeltaShape(at), DeltaFill(at, saved), state_out_.data());
  }
  {
    const PhaseTimer timer(phases.rows);
    ops::TrainGroupNorm(pool_, {.x = state_out_.data(),
                                .stride = values,
                                .rows = rows,
                                .groups = heads,
                                .width = config.value_dim,
                                .weight = at.source().layer(at.layer).delta->norm.data(),
                                .eps = config_.norm_eps,
                                .y = saved.state_y.data(),
                                .inverse = saved.state_inverse.data()});
    ops::TrainToBf16(kernels_, pool_, state_out_.data(), gated_.data(), rows * values);
    ops::TrainActivate(kernels_, pool_, TrainGate::kSilu,
                       GateOf(saved.state_gate.data(), gated_.data(), rows, values));
  }
  Frozen(at, FrozenSite::kDeltaOut, {gated_.data(), x, TrainStore::kAddF32});
}

// d_mixed_ [T, channels] to that of the convolution's input, in place of convolved_.
void TrainLayer::DeltaInputsBackward(const At& at) {
  const PhaseTimer timer(phases.rows);
  const DeltaConfig& config = config_.delta;
  const int64_t channels = config.channels(), dim = config.key_dim, heads = 2 * config.key_heads;
  pool_.ParallelFor(at.rows(), kRowsOfAThread, [&](int64_t begin, int64_t end, int thread) {
    std::vector<float>& sigmoid = row_scratch_[static_cast<size_t>(thread)];
    sigmoid.resize(static_cast<size_t>(channels));
    for (int64_t row = begin; row < end; ++row) {
      const float *c = convolved_.data() + row * channels, *x = mixed_.data() + row * channels;
      float* d = d_mixed_.data() + row * channels;
      for (int64_t head = 0; head < heads; ++head) {
        const float *unit = x + head * dim, inverse = lengths_[row * heads + head];
        float* own = d + head * dim;
        float along = 0;
        for (int64_t i = 0; i < dim; ++i) along += unit[i] * own[i];
        for (int64_t i = 0; i < dim; ++i) own[i] = inverse * (own[i] - unit[i] * along);
      }
      kernels_.sigmoid(c, sigmoid.data(), channels);
      for (int64_t i = 0; i < channels; ++i) {
        const float s = sigmoid[static_cast<size_t>(i)];
        d[i] *= s * (1 + c[i] * (1 - s));
      }
    }
  });
  ops::TrainConvolveBackward(kernels_, pool_, DeltaConvolution(at), d_mixed_.data(),
                             convolved_.data());
}

// What a row of a head's state says of mixed_, alpha and beta.
ops::TrainState::Take TrainLayer::DeltaTake(const At& at, const LayerSaved& saved) {
  const DeltaConfig& config = config_.delta;
  const int64_t dim = config.key_dim, keys = config.key_heads * dim,
                padded = ops::PadRank(config.value_heads);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  return [this, &at, &saved, &config, dim, keys, padded, scale](
             int64_t row, int64_t head, const ops::StateRowGradient& gradient) {
    const int64_t first = row * config.channels(), key = KeyHeadOf(head) * dim,
                  value = first + 2 * keys + head * config.value_dim;
    const float *k = mixed_.data() + first + keys + key, *v = mixed_.data() + value;
    float *dq = d_mixed_.data() + first + key, *dk = dq + keys, *dv = d_mixed_.data() + value;
    const DeltaGate gate = DeltaGateOf(at, saved, row, head);
    float d_share = 0, d_decay = 0, d_rate = 0;  // d_share: of r d
    for (int64_t i = 0; i < dim; ++i) {
      dq[i] += scale * gradient.q[i];
      dk[i] += gradient.k[i] + gradient.a[i] - gate.rate * gate.decay * gradient.b[i];
      d_share -= gradient.b[i] * k[i];
      d_decay += gradient.w[i];
    }
    for (int64_t i = 0; i < config.value_dim; ++i) {
      dv[i] = gate.rate * gradient.v[i];
      d_rate += gradient.v[i] * v[i];
    }
    d_decay += gate.rate * d_share;
    d_rate += gate.decay * d_share;
    d_alpha_[row * padded + head] = FloatToBF16(d_decay * gate.decay * gate.decay_slope);
    d_beta_[row * padded + head] = FloatToBF16(d_rate * gate.rate * (1 - gate.rate));
  };
}

void TrainLayer::DeltaBackward(const At& at, const LayerSaved& saved, const Gradients& gradients) {
  const DeltaConfig& config = config_.delta;
  const int64_t rows = at.rows(), heads = config.value_heads, values = heads * config.value_dim,
                channels = config.channels(), padded = ops::PadRank(heads);
  const std::vector<float>& weight = at.source().layer(at.layer).delta->norm;
  FrozenBackward(at, FrozenSite::kDeltaOut, {dx_bf16_.data(), d_gated_.data(), TrainStore::kBF16});
  {
    const PhaseTimer timer(phases.rows);
    pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin * values; i < end * values; ++i) {
        gated_[i] = FloatToBF16(BF16ToFloat(saved.state_y[i]) *
                                weight[static_cast<size_t>(i % config.value_dim)]);
      }
    });
    TrainActivationArgs gate = GateOf(saved.state_gate.data(), gated_.data(), rows, values);
    gate.act = nullptr;
    gate.d_act = d_gated_.data();
    gate.d_gate = d_z_.data();
    gate.d_up = gated_.data();
    ops::TrainActivateBackward(kernels_, pool_, TrainGate::kSilu, gate);
    ops::TrainGroupNormBackward(pool_, {.d = gated_.data(),
                                        .stride = values,
                                        .rows = rows,
                                        .groups = heads,
                                        .width = config.value_dim,
                                        .weight = weight.data(),
                                        .y = saved.state_y.data(),
                                        .inverse = saved.state_inverse.data()});
    pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin * values; i < end * values; ++i) {
        state_out_[i] = BF16ToFloat(gated_[i]);
      }
      std::fill(d_mixed_.data() + begin * channels, d_mixed_.data() + end * channels, 0.0f);
      for (uint16_t* d : {d_alpha_.data(), d_beta_.data()}) {
        std::fill(d + begin * padded, d + end * padded, uint16_t{0});
      }
    });
  }
  DeltaInputs(at, saved);
  {
    const PhaseTimer timer(phases.attention);
    state_.Backward(DeltaShape(at), DeltaFill(at, saved), state_out_.data(), DeltaTake(at, saved));
  }
  DeltaInputsBackward(at);
  ops::TrainToBf16(kernels_, pool_, convolved_.data(), d_state_in_.data(), rows * channels);
  FrozenBackward(at, FrozenSite::kDeltaQkv, {d_state_in_.data(), dh_.data(), TrainStore::kF32});
  FrozenBackward(at, FrozenSite::kDeltaZ, {d_z_.data(), dh_.data(), TrainStore::kAddF32});
  FrozenBackward(at, FrozenSite::kDeltaAlpha, {d_alpha_.data(), dh_.data(), TrainStore::kAddF32});
  FrozenBackward(at, FrozenSite::kDeltaBeta, {d_beta_.data(), dh_.data(), TrainStore::kAddF32});
  BranchInputBackward(
      {saved.y_attention.data(), saved.inverse_attention.data(), AttentionNorm(at).weight, -1},
      rows, gradients, gradients.below);
}

}  // namespace bakestone
