#include "model/train_layer.h"

#include <algorithm>

#include "model/phase_timer.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"

namespace bakestone {
namespace {

// Rows that a product reads in whole tiles: zero beyond the last one ever written.
int64_t WholeRows(int64_t rows, int64_t width) {
  return width == 0 ? 0 : (rows + kTrainTileRows) * width;
}

size_t Index(TrainGroup group) { return static_cast<size_t>(group); }

}  // namespace

LayerStep LowestStep(const TrainLayout& layout, int64_t layer) {
  const auto trained = [&](std::initializer_list<Site> sites) {
    for (const Site site : sites) {
      const LinearId id{static_cast<int32_t>(layer), site};
      if (layout.Find(id) != nullptr || layout.FindMatrix(id) != nullptr) return true;
      const auto of_expert = [&](const LoraSlot& slot) {
        return slot.id.layer == layer && slot.id.site == site && slot.id.expert >= 0;
      };
      if (std::any_of(layout.slots.begin(), layout.slots.end(), of_expert)) return true;
    }
    return false;
  };
  const auto norm = [&](const std::vector<int64_t>& offsets) {
    return !offsets.empty() && offsets[static_cast<size_t>(layer)] >= 0;
  };
  if (norm(layout.attention_norms)) return LayerStep::kAttentionNorm;
  if (trained({Site::kQ, Site::kK, Site::kV})) return LayerStep::kQkv;
  if (trained({Site::kO})) return LayerStep::kO;
  if (norm(layout.mlp_norms)) return LayerStep::kMlpNorm;
  if (trained({Site::kGate, Site::kUp})) return LayerStep::kGateUp;
  return trained({Site::kDown}) ? LayerStep::kDown : LayerStep::kNone;
}

void LayerSaved::Reserve(const ModelConfig& config, int64_t rows, const PackedPairs& pairs) {
  Pieces::Plan plan;
  plan.Add(y_attention, WholeRows(rows, config.hidden_dim));
  plan.Add(y_mlp, WholeRows(rows, config.hidden_dim));
  plan.Add(q, WholeRows(rows, config.q_dim()));
  plan.Add(k, WholeRows(rows, config.kv_dim()));
  plan.Add(v, WholeRows(rows, config.kv_dim()));
  plan.Add(attention, WholeRows(rows, config.q_dim()));
  const int64_t mlp_rows = rows * std::max<int64_t>(config.router.used, 1);
  plan.Add(gate_up, WholeRows(mlp_rows, 2 * config.ffn_dim));
  for (const TrainGroup group :
       {TrainGroup::kQkv, TrainGroup::kO, TrainGroup::kGateUp, TrainGroup::kDown}) {
    plan.Add(xa[Index(group)],
             WholeRows(group >= TrainGroup::kGateUp ? mlp_rows : rows, pairs.widest()));
  }
  plan.Add(router_logits, rows * config.router.experts);
  plan.Add(shared_gate_up, WholeRows(rows, 2 * config.router.shared_dim));
  plan.Add(shared_shares, config.router.shared_dim > 0 ? rows : 0);
  for (const TrainGroup group : {TrainGroup::kQkv, TrainGroup::kO, TrainGroup::kDown}) {
    const int64_t width = pairs.dora() ? ShapeOf(config, group).out : 0;
    plan.Add(y[Index(group)], WholeRows(rows, width));
  }
  plan.Add(inverse_attention, rows);
  plan.Add(inverse_mlp, rows);
  plan.Add(log_sum, rows * config.num_heads);
  if (config.has_post_norms()) {
    plan.Add(y_attention_post, WholeRows(rows, config.hidden_dim));
    plan.Add(y_mlp_post, WholeRows(rows, config.hidden_dim));
    plan.Add(inverse_attention_post, rows);
    plan.Add(inverse_mlp_post, rows);
  }
  if (config.qk_norm != QkNorm::kNone) {
    plan.Add(y_q, WholeRows(rows, config.q_dim()));
    plan.Add(y_k, WholeRows(rows, config.kv_dim()));
    plan.Add(inverse_q, rows * config.num_heads);
    plan.Add(inverse_k, rows * config.num_kv_heads);
  }
  pieces.Reserve(plan);
}

TrainLayer::TrainLayer(const ModelConfig& config, const TrainKernels& kernels, ThreadPool& pool)
    : config_(config), kernels_(kernels), pool_(pool), attention_(kernels, pool) {}

void TrainLayer::Reserve(int64_t rows) {
  Pieces::Plan plan;
  const int64_t hidden = config_.hidden_dim, qkv = config_.q_dim() + 2 * config_.kv_dim();
  plan.Add(h_, WholeRows(rows, hidden));
  const int64_t mlp = std::max(config_.ffn_dim, config_.router.shared_dim);
  plan.Add(act_, WholeRows(rows, mlp));
  plan.Add(dx_bf16_, WholeRows(rows, hidden));
  plan.Add(d_act_, WholeRows(rows, mlp));
  plan.Add(d_gate_up_, WholeRows(rows, 2 * mlp));
  plan.Add(d_attention_, WholeRows(rows, config_.q_dim()));
  plan.Add(d_qkv_bf16_, WholeRows(rows, qkv));
  plan.Add(qkv_, rows * qkv);
  plan.Add(dh_, rows * hidden);
  if (const int64_t experts = config_.router.experts; experts > 0) {
    plan.Add(expert_in_, WholeRows(rows, hidden));
    plan.Add(d_expert_, WholeRows(rows, hidden));
    plan.Add(d_logits_, WholeRows(rows, ops::PadRank(experts)));
    plan.Add(expert_out_, rows * hidden);
    plan.Add(shares_, rows * experts);
    plan.Add(d_shares_, rows * experts);
    plan.Add(d_share_rows_, rows * config_.router.used);
    if (const int64_t dim = config_.router.shared_dim; dim > 0 && shared_transposed_.empty()) {
      shared_transposed_ = Buffer<uint16_t>(2 * dim * hidden);
    }
  }
  if (config_.has_post_norms()) {
    plan.Add(branch_, rows * hidden);
    plan.Add(d_branch_, WholeRows(rows, hidden));
  }
  pieces_.Reserve(plan);
}

int64_t TrainLayer::bytes() const noexcept {
  return attention_.bytes() + linear_.bytes() + pieces_.bytes() + router_transposed_.bytes() +
         shared_transposed_.bytes();
}

ops::TrainAttentionShape TrainLayer::AttentionOf(int64_t layer, const LayerBatch& batch) const {
  return {.rows = batch.rows,
          .heads = config_.num_heads,
          .kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .window = config_.window(layer),
          .scale = config_.attention_scale,
          .document_begins = batch.document_begins};
}

const uint16_t* TrainLayer::Panels(int64_t layer, const LayerBatch& batch) {
  const PhaseTimer timer(phases.weights);
  return batch.weights->Layer(layer);
}

void TrainLayer::RoundDx(int64_t rows, const float* dx) {
  ops::TrainToBf16(kernels_, pool_, dx, dx_bf16_.data(), rows * config_.hidden_dim);
}

bool TrainLayer::FillBias(int64_t layer, const LayerBatch& batch) {
  const GroupShape shape = ShapeOf(config_, TrainGroup::kQkv);
  const TrainSource& source = batch.weights->source();
  bool any = false;
  for (const Site site : shape.sites) {
    any = any || source.bias({static_cast<int32_t>(layer), site}) != nullptr;
  }
  if (!any) return false;
  for (size_t i = 0; i < shape.sites.size(); ++i) {
    const float* bias = source.bias({static_cast<int32_t>(layer), shape.sites[i]});
    const int64_t width = shape.out_begin[i + 1] - shape.out_begin[i];
    for (int64_t row = 0; row < batch.rows; ++row) {
      float* out = qkv_.data() + row * shape.out + shape.out_begin[i];
      if (bias == nullptr) {
        std::fill_n(out, width, 0.0f);
      } else {
        std::copy_n(bias, width, out);
      }
    }
  }
  return true;
}

const ops::RopeTable* TrainLayer::RopeOf(int64_t layer, const LayerBatch& batch) const {
  switch (config_.layer_rope(layer)) {
    case LayerRope::kMain:
      return batch.rope;
    case LayerRope::kLocal:
      return batch.local_rope;
    case LayerRope::kNone:
      return nullptr;
  }
  return nullptr;
}

void TrainLayer::Rotate(const float* x, int64_t x_stride, int64_t heads, const LayerBatch& batch,
                        const ops::RopeTable* table, float sign, uint16_t* out,
                        int64_t out_stride) {
  ops::TrainRope(kernels_, pool_,
                 {.x = x,
                  .x_stride = x_stride,
                  .out = out,
                  .out_stride = out_stride,
                  .cosines = table != nullptr ? table->cos() : nullptr,
                  .sines = table != nullptr ? table->sin() : nullptr,
                  .rows = batch.rows,
                  .heads = heads,
                  .head_dim = config_.head_dim,
                  .dim = table != nullptr ? table->dim() : 0,
                  .sign = sign});
}

void TrainLayer::LinearForward(int64_t layer, TrainGroup group, const LayerBatch& batch,
                               const uint16_t* panels, const uint16_t* x, LayerSaved& saved,
                               void* out, TrainStore store, const AfterUnit* after) {
  const PhaseTimer timer(phases.products);
  const uint16_t* own = panels + batch.weights->group_offset(group);
  batch.pairs->ScaleOutputs(layer, group, own, kernels_, pool_);
  bakestone::Forward(kernels_, pool_, ShapeOf(config_, group), batch.pairs->group(layer, group),
                     own,
                     {.x = x,
                      .rows = batch.rows,
                      .xa = saved.xa[Index(group)].data(),
                      .out = out,
                      .store = store,
                      .after = after});
}

void TrainLayer::LinearAdd(int64_t layer, TrainGroup group, const LayerBatch& batch,
                           const uint16_t* panels, const uint16_t* x, LayerSaved& saved,
                           float* out) {
  if (!batch.pairs->dora() || batch.pairs->group(layer, group).r == 0) {
    return LinearForward(layer, group, batch, panels, x, saved, out, TrainStore::kAddF32);
  }
  uint16_t* y = saved.y[Index(group)].data();
  LinearForward(layer, group, batch, panels, x, saved, y, TrainStore::kBF16);
  ops::TrainAddBf16(kernels_, pool_, y, out, batch.rows * ShapeOf(config_, group).out);
}

void TrainLayer::LinearBackward(int64_t layer, TrainGroup group, const LayerBatch& batch,
                                const uint16_t* panels, const uint16_t* dy, const uint16_t* x,
                                const LayerSaved& saved, const Gradients& gradients, void* dx,
                                TrainStore store, const AfterUnit* after) {
  const GroupShape shape = ShapeOf(config_, group);
  const uint16_t* transposed = nullptr;
  if (dx != nullptr) {
    const PhaseTimer timer(phases.weights);
    transposed = batch.weights->Transposed(group, panels + batch.weights->group_offset(group));
  }
  bakestone::LinearBackward args = {
      .dy = dy,
      .x = x,
      .xa = saved.xa[Index(group)].data(),
      .y = group == TrainGroup::kGateUp ? saved.gate_up.data() : saved.y[Index(group)].data(),
      .rows = batch.rows,
      .dx = dx,
      .store = store,
      .after = after,
      .slots = {},
      .matrices = {},
      .gradients = gradients.out};
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const LinearId id{static_cast<int32_t>(layer), shape.sites[i]};
    args.slots[i] = gradients.layout->Find(id);
    args.matrices[i] = gradients.layout->FindMatrix(id);
  }
  const PhaseTimer timer(phases.products);
  bakestone::Backward(kernels_, pool_, shape, batch.pairs->group(layer, group), transposed, args,
                      linear_);
}

void TrainLayer::AttentionForward(int64_t layer, const LayerBatch& batch, const uint16_t* panels,
                                  float* x, LayerSaved& saved) {
  const int64_t rows = batch.rows, q = config_.q_dim(), kv = config_.kv_dim(), all = q + 2 * kv;
  const uint16_t* input = BranchInput(x, batch.weights->source().attention_norm(layer), rows,
                                      saved.y_attention.data(), saved.inverse_attention.data());
  const bool adds = batch.pairs->dora() && batch.pairs->group(layer, TrainGroup::kQkv).r > 0;
  if (FillBias(layer, batch)) {
    LinearAdd(layer, TrainGroup::kQkv, batch, panels, input, saved, qkv_.data());
  } else if (adds) {
    std::fill_n(qkv_.data(), rows * all, 0.0f);
    LinearAdd(layer, TrainGroup::kQkv, batch, panels, input, saved, qkv_.data());
  } else {
    LinearForward(layer, TrainGroup::kQkv, batch, panels, input, saved, qkv_.data(),
                  TrainStore::kF32);
  }
  {
    const PhaseTimer timer(phases.rows);
    const ops::RopeTable* table = RopeOf(layer, batch);
    float* v = qkv_.data() + q + kv;
    NormHeads(layer, batch, saved);
    // A factor on what attention adds is one on the values.
    if (config_.residual_scale != 1) {
      ops::TrainScale(pool_, config_.residual_scale, rows, kv, all, v);
    }
    Rotate(qkv_.data(), all, config_.num_heads, batch, table, 1, saved.q.data(), q);
    Rotate(qkv_.data() + q, all, config_.num_kv_heads, batch, table, 1, saved.k.data(), kv);
    Rotate(v, all, config_.num_kv_heads, batch, nullptr, 1, saved.v.data(), kv);
  }
  {
    const PhaseTimer timer(phases.attention);
    attention_.Forward(AttentionOf(layer, batch), saved.q.data(), saved.k.data(), saved.v.data(),
                       saved.attention.data(), saved.log_sum.data());
  }
  BranchOutput(layer, TrainGroup::kO, batch, panels, saved.attention.data(), saved, x);
}

TrainSwiGluArgs TrainLayer::SideBySide(const uint16_t* gate_up, int64_t rows, int64_t dim) {
  return {.gate = gate_up,
          .up = gate_up + dim,
          .stride = 2 * dim,
          .rows = rows,
          .dim = dim,
          .factor = 1,
          .act = nullptr,
          .act_stride = dim,
          .d_act = nullptr,
          .d_act_stride = dim,
          .d_gate = nullptr,
          .d_up = nullptr};
}

// A factor on what the MLP adds is one on the input of its last product.
TrainSwiGluArgs TrainLayer::Activation(const LayerBatch& batch, const LayerSaved& saved) {
  TrainSwiGluArgs args = SideBySide(saved.gate_up.data(), batch.rows, config_.ffn_dim);
  args.factor = config_.residual_scale;
  args.act = act_.data();
  args.d_act = d_act_.data();
  args.d_gate = d_gate_up_.data();
  args.d_up = d_gate_up_.data() + config_.ffn_dim;
  return args;
}

void TrainLayer::MlpForward(int64_t layer, const LayerBatch& batch, const uint16_t* panels,
                            float* x, LayerSaved& saved) {
  const int64_t rows = batch.rows;
  const uint16_t* input = BranchInput(x, batch.weights->source().mlp_norm(layer), rows,
                                      saved.y_mlp.data(), saved.inverse_mlp.data());
  const TrainSwiGluArgs activation = Activation(batch, saved);
  const AfterUnit activate = [&](const ops::TrainUnit& unit) {
    ops::TrainActivate(kernels_, gate(),
                       ops::ActivationPart(activation, unit.row, unit.rows, unit.col, unit.cols));
  };
  LinearForward(layer, TrainGroup::kGateUp, batch, panels, input, saved, saved.gate_up.data(),
                TrainStore::kBF16, &activate);
  BranchOutput(layer, TrainGroup::kDown, batch, panels, act_.data(), saved, x);
}

void TrainLayer::Forward(int64_t layer, const LayerBatch& batch, float* x, LayerSaved& saved) {
  const uint16_t* panels = Panels(layer, batch);
  AttentionForward(layer, batch, panels, x, saved);
  if (config_.has_experts(layer)) return ExpertsForward(layer, batch, panels, x, saved);
  MlpForward(layer, batch, panels, x, saved);
}

void TrainLayer::MlpBackward(int64_t layer, const LayerBatch& batch, const uint16_t* panels,
                             const LayerSaved& saved, const Gradients& gradients) {
  const float* weight = batch.weights->source().mlp_norm(layer);
  const TrainSwiGluArgs activation = Activation(batch, saved);
  const uint16_t* dy = BranchOutputBackward(layer, TrainGroup::kDown, batch, saved, gradients);
  if (Ends(LayerStep::kDown, gradients)) {
    {
      const PhaseTimer timer(phases.rows);
      ops::TrainActivate(kernels_, pool_, gate(), activation);
    }
    LinearBackward(layer, TrainGroup::kDown, batch, panels, dy, act_.data(), saved, gradients,
                   nullptr, TrainStore::kBF16);
    return;
  }
  const AfterUnit activate = [&](const ops::TrainUnit& unit) {
    ops::TrainActivateBackward(
        kernels_, gate(),
        ops::ActivationPart(activation, unit.row, unit.rows, unit.col, unit.cols));
  };
  LinearBackward(layer, TrainGroup::kDown, batch, panels, dy, act_.data(), saved, gradients,
                 d_act_.data(), TrainStore::kBF16, &activate);
  const uint16_t* input = BranchInputAgain(saved.y_mlp.data(), weight, batch.rows);
  const bool gate_up_ends = Ends(LayerStep::kGateUp, gradients);
  LinearBackward(layer, TrainGroup::kGateUp, batch, panels, d_gate_up_.data(), input, saved,
                 gradients, gate_up_ends ? nullptr : dh_.data(), TrainStore::kF32);
  if (gate_up_ends) return;
  const auto& norms = gradients.layout->mlp_norms;
  BranchInputBackward({saved.y_mlp.data(), saved.inverse_mlp.data(), weight,
                       norms.empty() ? -1 : norms[static_cast<size_t>(layer)]},
                      batch.rows, gradients, !Ends(LayerStep::kMlpNorm, gradients));
}

void TrainLayer::AttentionBackward(int64_t layer, const LayerBatch& batch, const uint16_t* panels,
                                   const LayerSaved& saved, const Gradients& gradients) {
  const int64_t rows = batch.rows, q = config_.q_dim(), kv = config_.kv_dim(), all = q + 2 * kv;
  const float* weight = batch.weights->source().attention_norm(layer);
  const bool o_ends = Ends(LayerStep::kO, gradients);
  const uint16_t* dy = BranchOutputBackward(layer, TrainGroup::kO, batch, saved, gradients);
  LinearBackward(layer, TrainGroup::kO, batch, panels, dy, saved.attention.data(), saved, gradients,
                 o_ends ? nullptr : d_attention_.data(), TrainStore::kBF16);
  if (o_ends) return;
  {
    const PhaseTimer timer(phases.attention);
    attention_.Backward(
        AttentionOf(layer, batch), saved.q.data(), saved.k.data(), saved.v.data(),
        saved.attention.data(), saved.log_sum.data(), d_attention_.data(),
        {.q = qkv_.data(), .k = qkv_.data() + q, .v = qkv_.data() + q + kv, .stride = all});
  }
  {
    const PhaseTimer timer(phases.rows);
    uint16_t* out = d_qkv_bf16_.data();
    const ops::RopeTable* table = RopeOf(layer, batch);
    float* dv = qkv_.data() + q + kv;
    if (config_.residual_scale != 1) {
      ops::TrainScale(pool_, config_.residual_scale, rows, kv, all, dv);
    }
    Rotate(qkv_.data(), all, config_.num_heads, batch, table, -1, out, all);
    Rotate(qkv_.data() + q, all, config_.num_kv_heads, batch, table, -1, out + q, all);
    Rotate(dv, all, config_.num_kv_heads, batch, nullptr, 1, out + q + kv, all);
    NormHeadsBackward(layer, batch, saved);
  }
  const uint16_t* input = BranchInputAgain(saved.y_attention.data(), weight, rows);
  const bool qkv_ends = Ends(LayerStep::kQkv, gradients);
  LinearBackward(layer, TrainGroup::kQkv, batch, panels, d_qkv_bf16_.data(), input, saved,
                 gradients, qkv_ends ? nullptr : dh_.data(), TrainStore::kF32);
  if (qkv_ends) return;
  const auto& norms = gradients.layout->attention_norms;
  BranchInputBackward({saved.y_attention.data(), saved.inverse_attention.data(), weight,
                       norms.empty() ? -1 : norms[static_cast<size_t>(layer)]},
                      rows, gradients, gradients.below);
}

void TrainLayer::Backward(int64_t layer, const LayerBatch& batch, const LayerSaved& saved,
                          const Gradients& gradients) {
  const uint16_t* panels = Panels(layer, batch);
  if (config_.has_experts(layer)) {
    ExpertsBackward(layer, batch, panels, saved, gradients);
  } else {
    MlpBackward(layer, batch, panels, saved, gradients);
  }
  if (!gradients.below && gradients.lowest >= LayerStep::kMlpNorm) return;
  AttentionBackward(layer, batch, panels, saved, gradients);
}

}  // namespace bakestone
