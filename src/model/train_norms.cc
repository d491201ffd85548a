// The norms of a layer's training pass: of what its branches take and give, and of queries and
// keys.
#include <algorithm>

#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"

namespace bakestone {

TrainLayer::NormWeights TrainLayer::AttentionNorm(const At& at) const {
  return {at.source().attention_norm(at.layer),
          centred() ? at.source().layer(at.layer).attention_norm_bias.data() : nullptr};
}

TrainLayer::NormWeights TrainLayer::MlpNorm(const At& at) const {
  return {at.source().mlp_norm(at.layer),
          centred() ? at.source().layer(at.layer).mlp_norm_bias.data() : nullptr};
}

void TrainLayer::Normalize(const float* x, const NormWeights& norm, int64_t rows, uint16_t* y,
                           float* inverse) {
  const PhaseTimer timer(phases.rows);
  ops::TrainNorm(kernels_, pool_,
                 {.x = x,
                  .weight = norm.weight,
                  .bias = norm.bias,
                  .centred = centred(),
                  .rows = rows,
                  .dim = config_.hidden_dim,
                  .eps = config_.norm_eps,
                  .y = y,
                  .h = h_.data(),
                  .inverse = inverse});
}

void TrainLayer::NormBackward(const NormInput& norm, int64_t rows, const Gradients& gradients,
                              bool wants_dx) {
  const PhaseTimer timer(phases.rows);
  if (norm.offset >= 0) {
    ops::TrainColumnDot(kernels_, pool_,
                        {.a = dh_.data(),
                         .a_bf16 = nullptr,
                         .a_stride = config_.hidden_dim,
                         .b = norm.y,
                         .b_stride = config_.hidden_dim,
                         .factor = nullptr,
                         .rows = rows,
                         .sums = gradients.out + norm.offset},
                        config_.hidden_dim);
  }
  if (!wants_dx) return;
  ops::TrainNormBackward(kernels_, pool_,
                         {.centred = centred(),
                          .dh = dh_.data(),
                          .y = norm.y,
                          .inverse = norm.inverse,
                          .weight = norm.weight,
                          .rows = rows,
                          .dim = config_.hidden_dim,
                          .dx = gradients.dx,
                          .dx_bf16 = dx_bf16_.data()});
}

void TrainLayer::NormHeads(const At& at, const QkvPlaces& places, LayerSaved& saved) {
  if (config_.qk_norm == QkNorm::kNone) return;
  const bool whole = config_.qk_norm == QkNorm::kWhole;
  const int64_t dim = config_.layer_head_dim(at.layer);
  ops::TrainGroupNormArgs args = {.x = qkv_.data(),
                                  .stride = places.stride,
                                  .rows = at.rows(),
                                  .groups = whole ? 1 : places.heads,
                                  .width = whole ? places.q : dim,
                                  .weight = at.source().q_norm(at.layer),
                                  .eps = config_.norm_eps,
                                  .y = saved.y_q.data(),
                                  .inverse = saved.inverse_q.data()};
  ops::TrainGroupNorm(pool_, args);
  if (!places.owns) return;
  args.x = places.k;
  args.groups = whole ? 1 : places.kv_heads;
  args.width = whole ? places.kv : dim;
  args.weight = at.source().k_norm(at.layer);
  args.y = saved.y_k.data();
  args.inverse = saved.inverse_k.data();
  ops::TrainGroupNorm(pool_, args);
  if (!config_.value_norm) return;
  args.x = places.v;
  args.stride = places.v_stride;
  args.weight = at.source().layer(at.layer).v_norm.data();
  args.y = saved.y_v.data();
  args.inverse = saved.inverse_v.data();
  ops::TrainGroupNorm(pool_, args);
}

// Of d_qkv_bf16_, and of values apart in d_values_.
void TrainLayer::NormHeadsBackward(const At& at, const QkvPlaces& places, const LayerSaved& saved) {
  if (config_.qk_norm == QkNorm::kNone) return;
  const bool whole = config_.qk_norm == QkNorm::kWhole;
  const int64_t dim = config_.layer_head_dim(at.layer);
  ops::TrainGroupNormBackwardArgs args = {.d = d_qkv_bf16_.data(),
                                          .stride = places.stride,
                                          .rows = at.rows(),
                                          .groups = whole ? 1 : places.heads,
                                          .width = whole ? places.q : dim,
                                          .weight = at.source().q_norm(at.layer),
                                          .y = saved.y_q.data(),
                                          .inverse = saved.inverse_q.data()};
  ops::TrainGroupNormBackward(pool_, args);
  if (!places.owns) return;
  args.d = d_qkv_bf16_.data() + places.q;
  args.groups = whole ? 1 : places.kv_heads;
  args.width = whole ? places.kv : dim;
  args.weight = at.source().k_norm(at.layer);
  args.y = saved.y_k.data();
  args.inverse = saved.inverse_k.data();
  ops::TrainGroupNormBackward(pool_, args);
  if (!config_.value_norm) return;
  args.d = places.apart ? d_values_.data() : d_qkv_bf16_.data() + places.q + places.kv;
  args.stride = places.v_stride;
  args.weight = at.source().layer(at.layer).v_norm.data();
  args.y = saved.y_v.data();
  args.inverse = saved.inverse_v.data();
  ops::TrainGroupNormBackward(pool_, args);
}

const uint16_t* TrainLayer::BranchInput(const float* x, const NormWeights& norm, int64_t rows,
                                        uint16_t* y, float* inverse) {
  if (config_.has_pre_norms()) {
    Normalize(x, norm, rows, y, inverse);
    return h_.data();
  }
  const PhaseTimer timer(phases.rows);
  ops::TrainToBf16(kernels_, pool_, x, y, rows * config_.hidden_dim);
  return y;
}

const uint16_t* TrainLayer::BranchInputAgain(const uint16_t* y, const NormWeights& norm,
                                             int64_t rows) {
  if (!config_.has_pre_norms()) return y;
  const PhaseTimer timer(phases.rows);
  ops::TrainScaleRows(kernels_, pool_, y, norm.weight, norm.bias, rows, config_.hidden_dim,
                      h_.data());
  return h_.data();
}

void TrainLayer::BranchOutput(const At& at, TrainGroup group, const uint16_t* input,
                              LayerSaved& saved, float* x) {
  const int64_t size = at.rows() * config_.hidden_dim;
  if (!config_.has_post_norms()) {
    if (FillBias(at, group, dh_.data())) {
      const float factor = config_.residual_scale;
      for (int64_t i = 0; i < size; ++i) x[i] += factor * dh_[i];
    }
    return LinearAdd(at, group, input, saved, x);
  }
  if (!FillBias(at, group, branch_.data())) std::fill_n(branch_.data(), size, 0.0f);
  LinearAdd(at, group, input, saved, branch_.data());
  const bool attention = group == TrainGroup::kO;
  const TrainSource& source = at.source();
  Normalize(
      branch_.data(),
      {attention ? source.attention_post_norm(at.layer) : source.mlp_post_norm(at.layer), nullptr},
      at.rows(), attention ? saved.y_attention_post.data() : saved.y_mlp_post.data(),
      attention ? saved.inverse_attention_post.data() : saved.inverse_mlp_post.data());
  const PhaseTimer timer(phases.rows);
  ops::TrainAddBf16(kernels_, pool_, h_.data(), x, size);
}

const uint16_t* TrainLayer::BranchOutputBackward(const At& at, TrainGroup group,
                                                 const LayerSaved& saved,
                                                 const Gradients& gradients) {
  if (!config_.has_post_norms()) return dx_bf16_.data();
  const PhaseTimer timer(phases.rows);
  const bool attention = group == TrainGroup::kO;
  const TrainSource& source = at.source();
  std::fill_n(branch_.data(), at.rows() * config_.hidden_dim, 0.0f);
  ops::TrainNormBackward(
      kernels_, pool_,
      {.centred = false,
       .dh = gradients.dx,
       .y = attention ? saved.y_attention_post.data() : saved.y_mlp_post.data(),
       .inverse = attention ? saved.inverse_attention_post.data() : saved.inverse_mlp_post.data(),
       .weight = attention ? source.attention_post_norm(at.layer) : source.mlp_post_norm(at.layer),
       .rows = at.rows(),
       .dim = config_.hidden_dim,
       .dx = branch_.data(),
       .dx_bf16 = d_branch_.data()});
  return d_branch_.data();
}

void TrainLayer::BranchInputBackward(const NormInput& norm, int64_t rows,
                                     const Gradients& gradients, bool wants_dx) {
  if (config_.has_pre_norms()) return NormBackward(norm, rows, gradients, wants_dx);
  if (!wants_dx) return;
  const int64_t size = rows * config_.hidden_dim;
  for (int64_t i = 0; i < size; ++i) gradients.dx[i] += dh_.data()[i];
  RoundDx(rows, gradients.dx);
}

}  // namespace bakestone
