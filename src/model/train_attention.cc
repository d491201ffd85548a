// Attention in the training pass: products, norms and rotation of queries, keys and values, the
// mix, a gate of what heads give, output; keys and values that other layers read.
#include <algorithm>

#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {

ops::TrainAttentionShape TrainLayer::AttentionOf(const At& at) const {
  return {.rows = at.rows(),
          .heads = config_.num_heads,
          .kv_heads = config_.layer_kv_heads(at.layer),
          .head_dim = config_.layer_head_dim(at.layer),
          .window = config_.window(at.layer),
          .scale = config_.attention_scale,
          .soft_cap = config_.attention_soft_cap,
          .sinks = config_.sinks ? at.source().layer(at.layer).sinks.data() : nullptr,
          .document_begins = at.batch.document_begins};
}

const ops::RopeTable* TrainLayer::RopeOf(const At& at) const {
  switch (config_.layer_rope(at.layer)) {
    case LayerRope::kMain:
      return at.batch.rope;
    case LayerRope::kLocal:
      return at.batch.local_rope;
    case LayerRope::kNone:
      return nullptr;
  }
  return nullptr;
}

void TrainLayer::Rotate(const At& at, const float* x, int64_t x_stride, int64_t heads,
                        int64_t head_dim, const ops::RopeTable* table, float sign, uint16_t* out,
                        int64_t out_stride) {
  ops::TrainRope(kernels_, pool_,
                 {.x = x,
                  .x_stride = x_stride,
                  .out = out,
                  .out_stride = out_stride,
                  .cosines = table != nullptr ? table->cos() : nullptr,
                  .sines = table != nullptr ? table->sin() : nullptr,
                  .rows = at.rows(),
                  .heads = heads,
                  .head_dim = head_dim,
                  .dim = table != nullptr ? table->dim() : 0,
                  .sign = sign});
}

TrainLayer::QkvPlaces TrainLayer::PlacesOf(const At& at) const {
  const int64_t q = config_.q_dim(at.layer), kv = config_.kv_dim(at.layer),
                stride = ShapeAt(at, TrainGroup::kQkv).out;
  const bool apart = config_.has_keys_as_values(at.layer);
  return {.q = q,
          .kv = kv,
          .heads = config_.num_heads,
          .kv_heads = config_.layer_kv_heads(at.layer),
          .head_dim = config_.layer_head_dim(at.layer),
          .owns = config_.owns_kv(at.layer),
          .apart = apart,
          .k = qkv_.data() + q,
          .v = apart ? values_.data() : qkv_.data() + q + kv,
          .stride = stride,
          .v_stride = apart ? kv : stride};
}

void TrainLayer::AttentionForward(const At& at, float* x, LayerSaved& saved) {
  const QkvPlaces places = PlacesOf(at);
  const int64_t rows = at.rows(), all = places.stride, q = places.q, kv = places.kv;
  const uint16_t* input = BranchInput(x, AttentionNorm(at), rows, saved.y_attention.data(),
                                      saved.inverse_attention.data());
  const PackedPairs& pairs = *at.batch.pairs;
  const bool adds = pairs.dora() && pairs.group(at.layer, TrainGroup::kQkv).r > 0;
  if (FillBias(at, TrainGroup::kQkv, qkv_.data())) {
    LinearAdd(at, TrainGroup::kQkv, input, saved, qkv_.data());
  } else if (adds) {
    std::fill_n(qkv_.data(), rows * all, 0.0f);
    LinearAdd(at, TrainGroup::kQkv, input, saved, qkv_.data());
  } else {
    LinearForward(at, TrainGroup::kQkv, input, saved, qkv_.data(), TrainStore::kF32);
  }
  const bool owns = places.owns;
  {
    const PhaseTimer timer(phases.rows);
    const ops::RopeTable* table = RopeOf(at);
    for (int64_t row = 0; row < rows && places.apart; ++row) {
      std::copy_n(places.k + row * all, kv, places.v + row * kv);
    }
    NormHeads(at, places, saved);
    // A factor on what attention adds is one on the values.
    if (config_.residual_scale != 1) {
      ops::TrainScale(pool_, config_.residual_scale, rows, kv, places.v_stride, places.v);
    }
    Rotate(at, qkv_.data(), all, places.heads, places.head_dim, table, 1, saved.q.data(), q);
    if (owns) {
      Rotate(at, places.k, all, places.kv_heads, places.head_dim, table, 1, saved.k.data(), kv);
      Rotate(at, places.v, places.v_stride, places.kv_heads, places.head_dim, nullptr, 1,
             saved.v.data(), kv);
    }
    if (IsReadByOthers(config_, at.layer)) {
      SharedKeys& keys = shared_keys_[static_cast<size_t>(at.layer)];
      std::copy_n(saved.k.data(), rows * kv, keys.k.data());
      std::copy_n(saved.v.data(), rows * kv, keys.v.data());
    }
  }
  {
    const PhaseTimer timer(phases.attention);
    const SharedKeys& shared = shared_keys_[static_cast<size_t>(config_.kv_layer(at.layer))];
    attention_.Forward(AttentionOf(at), saved.q.data(), owns ? saved.k.data() : shared.k.data(),
                       owns ? saved.v.data() : shared.v.data(), saved.attention.data(),
                       saved.log_sum.data());
  }
  if (config_.output_gate) {
    Frozen(at, FrozenSite::kOutputGate, {input, saved.output_gate.data(), TrainStore::kBF16});
  }
  BranchOutput(at, TrainGroup::kO, HeadsOutput(at, saved), saved, x);
}

const uint16_t* TrainLayer::HeadsOutput(const At& at, const LayerSaved& saved) {
  if (!config_.output_gate) return saved.attention.data();
  const PhaseTimer timer(phases.rows);
  const int64_t q = config_.q_dim(at.layer);
  TrainActivationArgs args = GateOf(saved.output_gate.data(), gated_.data(), at.rows(), q);
  args.up = saved.attention.data();
  ops::TrainActivate(kernels_, pool_, TrainGate::kSigmoid, args);
  return gated_.data();
}

// Of a layer that reads another's keys and values: theirs are kept for that layer. Of one that is
// read: theirs are added to its own, both in qkv_.
void TrainLayer::AddSharedGradients(const At& at, const QkvPlaces& places) {
  if (places.owns && !IsReadByOthers(config_, at.layer)) return;
  SharedKeys& shared = shared_keys_[static_cast<size_t>(config_.kv_layer(at.layer))];
  const int64_t q = places.q, kv = places.kv, stride = q + 2 * kv;
  pool_.ParallelFor(at.rows(), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float *own_k = qkv_.data() + row * stride + q, *own_v = own_k + kv;
      float *k = shared.dk.data() + row * kv, *v = shared.dv.data() + row * kv;
      for (int64_t i = 0; i < kv; ++i) {
        float &to_k = places.owns ? own_k[i] : k[i], &to_v = places.owns ? own_v[i] : v[i];
        to_k = own_k[i] + k[i];
        to_v = own_v[i] + v[i];
      }
    }
  });
}

void TrainLayer::AttentionBackward(const At& at, const LayerSaved& saved,
                                   const Gradients& gradients) {
  const QkvPlaces places = PlacesOf(at);
  const int64_t rows = at.rows(), all = places.stride, q = places.q, kv = places.kv,
                stride = q + 2 * kv;
  const NormWeights norm = AttentionNorm(at);
  const bool o_ends = Ends(LayerStep::kO, gradients);
  const uint16_t* dy = BranchOutputBackward(at, TrainGroup::kO, saved, gradients);
  LinearBackward(at, TrainGroup::kO, dy, HeadsOutput(at, saved), saved, gradients,
                 o_ends ? nullptr : d_attention_.data(), TrainStore::kBF16);
  if (o_ends) return;
  if (config_.output_gate) {
    const PhaseTimer timer(phases.rows);
    TrainActivationArgs gate = GateOf(saved.output_gate.data(), gated_.data(), rows, q);
    gate.up = saved.attention.data();
    gate.act = nullptr;
    gate.d_act = d_attention_.data();
    gate.d_gate = d_z_.data();
    gate.d_up = d_attention_.data();
    ops::TrainActivateBackward(kernels_, pool_, TrainGate::kSigmoid, gate);
  }
  float *dk = qkv_.data() + q, *dv = dk + kv;
  {
    const PhaseTimer timer(phases.attention);
    const SharedKeys& shared = shared_keys_[static_cast<size_t>(config_.kv_layer(at.layer))];
    const bool owns = places.owns;
    attention_.Backward(
        AttentionOf(at), saved.q.data(), owns ? saved.k.data() : shared.k.data(),
        owns ? saved.v.data() : shared.v.data(), saved.attention.data(), saved.log_sum.data(),
        d_attention_.data(),
        {.q = qkv_.data(), .k = dk, .v = dv, .q_stride = stride, .kv_stride = stride});
  }
  {
    const PhaseTimer timer(phases.rows);
    AddSharedGradients(at, places);
    uint16_t* out = d_qkv_bf16_.data();
    const ops::RopeTable* table = RopeOf(at);
    if (config_.residual_scale != 1) {
      ops::TrainScale(pool_, config_.residual_scale, rows, kv, stride, dv);
    }
    Rotate(at, qkv_.data(), stride, places.heads, places.head_dim, table, -1, out, all);
    if (places.owns) {
      Rotate(at, dk, stride, places.kv_heads, places.head_dim, table, -1, out + q, all);
      Rotate(at, dv, stride, places.kv_heads, places.head_dim, nullptr, 1,
             places.apart ? d_values_.data() : out + q + kv, places.v_stride);
    }
    NormHeadsBackward(at, places, saved);
    for (int64_t i = 0; i < rows * kv && places.apart; ++i) {
      uint16_t& to = out[i / kv * all + q + i % kv];
      to = FloatToBF16(BF16ToFloat(to) + BF16ToFloat(d_values_[i]));
    }
  }
  const uint16_t* input = BranchInputAgain(saved.y_attention.data(), norm, rows);
  const bool qkv_ends = Ends(LayerStep::kQkv, gradients);
  LinearBackward(at, TrainGroup::kQkv, d_qkv_bf16_.data(), input, saved, gradients,
                 qkv_ends ? nullptr : dh_.data(), TrainStore::kF32);
  if (qkv_ends) return;
  if (config_.output_gate) {
    FrozenBackward(at, FrozenSite::kOutputGate, {d_z_.data(), dh_.data(), TrainStore::kAddF32});
  }
  const auto& norms = gradients.layout->attention_norms;
  BranchInputBackward({saved.y_attention.data(), saved.inverse_attention.data(), norm.weight,
                       norms.empty() ? -1 : norms[static_cast<size_t>(at.layer)]},
                      rows, gradients, gradients.below);
}

}  // namespace bakestone
