// What stands beside a layer's attention and MLP in the training pass (model/decoder_beside.cc):
// experts beside the MLP, and what each layer is told of the token. Their own matrices are frozen.
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {

// The MLP, the router and the experts take the same row over its rms, each with weights of its own.
void TrainLayer::BesideForward(const At& at, float* x, LayerSaved& saved) {
  const int64_t rows = at.rows(), size = rows * config_.hidden_dim;
  const BesideWeights& beside = *at.source().layer(at.layer).beside;
  const uint16_t* y = saved.y_mlp.data();
  const uint16_t* input =
      BranchInput(x, MlpNorm(at), rows, saved.y_mlp.data(), saved.inverse_mlp.data());
  MlpActivation(at, input, saved);
  std::fill_n(branch_.data(), size, 0.0f);
  LinearAdd(at, TrainGroup::kDown, act_.data(), saved, branch_.data());
  Normalize(branch_.data(), {beside.mlp_norm.data(), nullptr}, rows, saved.y_beside_mlp.data(),
            saved.inverse_beside_mlp.data());
  std::fill_n(beside_.data(), size, 0.0f);
  ops::TrainAddBf16(kernels_, pool_, h_.data(), beside_.data(), size);

  RouteRows(at, BranchInputAgain(y, {beside.router_norm.data(), nullptr}, rows), saved);
  std::fill_n(branch_.data(), size, 0.0f);
  RunExperts(at, BranchInputAgain(y, {beside.experts_norm.data(), nullptr}, rows),
             ChoiceOf(at, saved), saved, branch_.data());
  Normalize(branch_.data(), {beside.experts_post_norm.data(), nullptr}, rows,
            saved.y_beside_experts.data(), saved.inverse_beside_experts.data());
  ops::TrainAddBf16(kernels_, pool_, h_.data(), beside_.data(), size);
  Normalize(beside_.data(), {at.source().mlp_post_norm(at.layer), nullptr}, rows,
            saved.y_mlp_post.data(), saved.inverse_mlp_post.data());
  ops::TrainAddBf16(kernels_, pool_, h_.data(), x, size);
}

void TrainLayer::OuterNormBackward(const At& at, const float* d, const float* weight,
                                   const uint16_t* y, const float* inverse) {
  const PhaseTimer timer(phases.rows);
  std::fill_n(beside_.data(), at.rows() * config_.hidden_dim, 0.0f);
  ops::TrainNormBackward(kernels_, pool_,
                         {.centred = false,
                          .dh = d,
                          .y = y,
                          .inverse = inverse,
                          .weight = weight,
                          .rows = at.rows(),
                          .dim = config_.hidden_dim,
                          .dx = beside_.data(),
                          .dx_bf16 = d_branch_.data()});
}

void TrainLayer::BesideBackward(const At& at, const LayerSaved& saved, const Gradients& gradients) {
  const int64_t rows = at.rows(), size = rows * config_.hidden_dim;
  const BesideWeights& beside = *at.source().layer(at.layer).beside;
  const uint16_t* y = saved.y_mlp.data();
  const auto to_stream = [&](const float* weight) {
    BranchInputBackward({y, saved.inverse_mlp.data(), weight, -1}, rows, gradients, true);
  };
  BranchOutputBackward(at, TrainGroup::kDown, saved, gradients);  // branch_: of the sum of both
  OuterNormBackward(at, branch_.data(), beside.mlp_norm.data(), saved.y_beside_mlp.data(),
                    saved.inverse_beside_mlp.data());
  if (!MlpInnerBackward(at, d_branch_.data(), saved, gradients)) return;
  to_stream(MlpNorm(at).weight);

  OuterNormBackward(at, branch_.data(), beside.experts_post_norm.data(),
                    saved.y_beside_experts.data(), saved.inverse_beside_experts.data());
  const std::vector<ExpertRows> chosen = ChoiceOf(at, saved);
  BranchInputAgain(y, {beside.experts_norm.data(), nullptr}, rows);  // h_
  std::fill_n(dh_.data(), size, 0.0f);
  RunExpertsBackward(at, d_branch_.data(), chosen, saved, gradients);
  to_stream(beside.experts_norm.data());
  std::fill_n(dh_.data(), size, 0.0f);
  RouterBackward(at, saved, chosen, d_share_rows_.data());
  to_stream(beside.router_norm.data());
}

// x += norm(out(gelu(gate x) * told)).
void TrainLayer::PerLayerForward(const At& at, float* x, LayerSaved& saved) {
  const int64_t rows = at.rows(), hidden = config_.hidden_dim, dim = config_.per_layer_dim,
                width = config_.num_layers * dim;
  ops::TrainToBf16(kernels_, pool_, x, h_.data(), rows * hidden);
  Frozen(at, FrozenSite::kLayerGate, {h_.data(), saved.layer_gate.data(), TrainStore::kBF16});
  const float* told = at.batch.per_layer + at.layer * dim;
  pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      kernels_.to_bf16(told + row * width, layer_act_.data() + row * dim, dim);
    }
  });
  ops::TrainActivate(kernels_, pool_, TrainGate::kGelu,
                     GateOf(saved.layer_gate.data(), layer_act_.data(), rows, dim));
  Frozen(at, FrozenSite::kLayerOut, {layer_act_.data(), branch_.data(), TrainStore::kF32});
  Normalize(branch_.data(), {at.source().layer(at.layer).per_layer->norm.data(), nullptr}, rows,
            saved.y_layer.data(), saved.inverse_layer.data());
  ops::TrainAddBf16(kernels_, pool_, h_.data(), x, rows * hidden);
}

void TrainLayer::PerLayerBackward(const At& at, const LayerSaved& saved,
                                  const Gradients& gradients) {
  const int64_t rows = at.rows(), hidden = config_.hidden_dim, dim = config_.per_layer_dim,
                width = config_.num_layers * dim;
  {
    const PhaseTimer timer(phases.rows);
    std::fill_n(branch_.data(), rows * hidden, 0.0f);
    ops::TrainNormBackward(kernels_, pool_,
                           {.centred = false,
                            .dh = gradients.dx,
                            .y = saved.y_layer.data(),
                            .inverse = saved.inverse_layer.data(),
                            .weight = at.source().layer(at.layer).per_layer->norm.data(),
                            .rows = rows,
                            .dim = hidden,
                            .dx = branch_.data(),
                            .dx_bf16 = d_branch_.data()});
  }
  FrozenBackward(at, FrozenSite::kLayerOut, {d_branch_.data(), d_layer_.data(), TrainStore::kBF16});
  const float* told = at.batch.per_layer + at.layer * dim;
  pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      kernels_.to_bf16(told + row * width, layer_act_.data() + row * dim, dim);
    }
  });
  TrainActivationArgs gate = GateOf(saved.layer_gate.data(), layer_act_.data(), rows, dim);
  gate.act = nullptr;
  gate.d_act = d_layer_.data();
  gate.d_gate = d_layer_.data();
  gate.d_up = layer_act_.data();  // of what is told: frozen
  ops::TrainActivateBackward(kernels_, pool_, TrainGate::kGelu, gate);
  FrozenBackward(at, FrozenSite::kLayerGate, {d_layer_.data(), gradients.dx, TrainStore::kAddF32});
  RoundDx(rows, gradients.dx);
}

}  // namespace bakestone
