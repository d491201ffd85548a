#include "model/train_layer.h"

#include <algorithm>

#include "model/phase_timer.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

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

void LayerSaved::Reserve(const ModelConfig& config, int64_t layer, int64_t rows,
                         const PackedPairs& pairs) {
  Pieces::Plan plan;
  const int64_t q_dim = config.q_dim(layer), kv_dim = config.kv_dim(layer);
  plan.Add(y_attention, WholeRows(rows, config.hidden_dim));
  plan.Add(y_mlp, WholeRows(rows, config.hidden_dim));
  const bool attends = config.mixer(layer) == Mixer::kAttention;
  const int64_t heads_width = attends ? q_dim : 0, keys_width = attends ? kv_dim : 0;
  plan.Add(q, WholeRows(rows, heads_width));
  plan.Add(k, WholeRows(rows, keys_width));
  plan.Add(v, WholeRows(rows, keys_width));
  plan.Add(attention, WholeRows(rows, heads_width));
  plan.Add(output_gate, WholeRows(rows, config.output_gate ? heads_width : 0));
  const LatentConfig& latent = config.latent;
  plan.Add(y_latent, WholeRows(rows, latent.kv_rank));
  plan.Add(y_queries, WholeRows(rows, latent.q_rank));
  plan.Add(inverse_latent, latent.kv_rank > 0 ? rows : 0);
  plan.Add(inverse_queries, latent.q_rank > 0 ? rows : 0);
  const StateWidths state = StateWidths::Of(config, layer);
  plan.Add(state_in, WholeRows(rows, state.in));
  plan.Add(state_gate, WholeRows(rows, state.values));
  plan.Add(state_y, WholeRows(rows, state.values));
  plan.Add(state_rates, rows * 2 * state.heads);
  plan.Add(state_inverse, rows * state.heads);
  const bool mixture = config.has_experts(layer);
  const int64_t mlp_rows = mixture ? rows * config.router.used : rows;
  const int64_t own_ffn = config.has_mlp(layer) ? config.ffn_width(layer) : 0;
  plan.Add(gate_up, WholeRows(rows, (config.gated() ? 2 : 1) * own_ffn));
  plan.Add(expert_gate_up, WholeRows(mlp_rows, mixture ? 2 * config.ffn_dim : 0));
  const int64_t beside = mixture && config.router.beside_mlp ? config.hidden_dim : 0;
  for (auto* part : {&y_beside_mlp, &y_beside_experts}) plan.Add(*part, WholeRows(rows, beside));
  for (auto* part : {&inverse_beside_mlp, &inverse_beside_experts}) {
    plan.Add(*part, beside > 0 ? rows : 0);
  }
  const bool told = config.per_layer_dim > 0;
  plan.Add(layer_gate, WholeRows(rows, config.per_layer_dim));
  plan.Add(y_layer, WholeRows(rows, told ? config.hidden_dim : 0));
  plan.Add(inverse_layer, told ? rows : 0);
  for (const TrainGroup group :
       {TrainGroup::kQkv, TrainGroup::kO, TrainGroup::kGateUp, TrainGroup::kDown}) {
    plan.Add(xa[Index(group)],
             WholeRows(group >= TrainGroup::kGateUp ? mlp_rows : rows, pairs.widest()));
  }
  plan.Add(router_logits, mixture ? rows * config.router.experts : 0);
  const int64_t shared = mixture ? config.router.shared_dim : 0;
  plan.Add(shared_gate_up, WholeRows(rows, 2 * shared));
  plan.Add(shared_shares, shared > 0 ? rows : 0);
  for (const TrainGroup group : {TrainGroup::kQkv, TrainGroup::kO, TrainGroup::kDown}) {
    const int64_t width = pairs.dora() ? ShapeOf(config, layer, group).out : 0;
    plan.Add(y[Index(group)], WholeRows(rows, width));
  }
  plan.Add(inverse_attention, rows);
  plan.Add(inverse_mlp, rows);
  plan.Add(log_sum, attends ? rows * config.num_heads : 0);
  if (config.has_post_norms()) {
    plan.Add(y_attention_post, WholeRows(rows, config.hidden_dim));
    plan.Add(y_mlp_post, WholeRows(rows, config.hidden_dim));
    plan.Add(inverse_attention_post, rows);
    plan.Add(inverse_mlp_post, rows);
  }
  if (attends && config.qk_norm != QkNorm::kNone) {
    plan.Add(y_q, WholeRows(rows, q_dim));
    plan.Add(y_k, WholeRows(rows, kv_dim));
    plan.Add(inverse_q, rows * config.num_heads);
    plan.Add(inverse_k, rows * config.layer_kv_heads(layer));
    plan.Add(y_v, WholeRows(rows, config.value_norm ? kv_dim : 0));
    plan.Add(inverse_v, config.value_norm ? rows * config.layer_kv_heads(layer) : 0);
  }
  pieces.Reserve(plan);
}

TrainLayer::TrainLayer(const ModelConfig& config, const TrainKernels& kernels, ThreadPool& pool)
    : config_(config),
      widths_(LayerWidths::Of(config)),
      kernels_(kernels),
      pool_(pool),
      attention_(kernels, pool),
      state_(kernels, pool),
      shared_keys_(static_cast<size_t>(config.num_layers)),
      row_scratch_(static_cast<size_t>(pool.num_threads())) {}

StateWidths StateWidths::Of(const ModelConfig& config, int64_t layer) {
  switch (config.mixer(layer)) {
    case Mixer::kConvolution:
      return {.in = 3 * config.hidden_dim, .values = 0, .heads = 0};
    case Mixer::kDeltaRule:
      return {.in = config.delta.channels(),
              .values = config.delta.value_heads * config.delta.value_dim,
              .heads = config.delta.value_heads};
    default:
      return {};
  }
}

LayerWidths LayerWidths::Of(const ModelConfig& config) {
  LayerWidths widths{.mlp = config.router.shared_dim};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    widths.q = std::max(widths.q, config.q_dim(layer));
    widths.kv = std::max(widths.kv, config.kv_dim(layer));
    if (config.has_mlp(layer)) widths.mlp = std::max(widths.mlp, config.ffn_width(layer));
    if (config.has_experts(layer)) widths.mlp = std::max(widths.mlp, config.ffn_dim);
    const StateWidths state = StateWidths::Of(config, layer);
    widths.channels = std::max(widths.channels, state.in);
    widths.values =
        std::max(widths.values, state.in > 0 ? std::max(state.values, config.hidden_dim) : 0);
    if (config.output_gate) widths.values = std::max(widths.values, config.q_dim(layer));
  }
  return widths;
}

void TrainLayer::Reserve(int64_t rows) {
  Pieces::Plan plan;
  const auto [q, kv, mlp, channels, values] = widths_;
  const int64_t hidden = config_.hidden_dim, qkv = q + 2 * kv;
  plan.Add(h_, WholeRows(rows, hidden));
  plan.Add(act_, WholeRows(rows, mlp));
  plan.Add(dx_bf16_, WholeRows(rows, hidden));
  plan.Add(d_act_, WholeRows(rows, mlp));
  plan.Add(d_gate_up_, WholeRows(rows, 2 * mlp));
  plan.Add(d_attention_, WholeRows(rows, q));
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
  }
  const LatentWidths latent = LatentWidths::Of(config_);
  plan.Add(latent_wide_, rows * std::max({latent.rank, latent.down, latent.up}));
  plan.Add(latent_x_, rows * latent.rank);
  plan.Add(latent_d_, rows * std::max(latent.rank, config_.latent.rope_dim));
  plan.Add(latent_h_, WholeRows(rows, latent.rank));
  plan.Add(latent_down_, WholeRows(rows, latent.down));
  plan.Add(latent_up_, WholeRows(rows, latent.up));
  plan.Add(d_latent_, WholeRows(rows, latent.up));
  if (!config_.keys_as_values.empty()) {
    plan.Add(values_, rows * kv);
    plan.Add(d_values_, rows * kv);
  }
  if (config_.router.beside_mlp) plan.Add(beside_, rows * hidden);
  plan.Add(layer_act_, WholeRows(rows, config_.per_layer_dim));
  plan.Add(d_layer_, WholeRows(rows, config_.per_layer_dim));
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    if (!IsRead(layer)) continue;
    SharedKeys& keys = shared_keys_[static_cast<size_t>(layer)];
    const int64_t width = config_.kv_dim(layer);
    for (auto* part : {&keys.k, &keys.v}) plan.Add(*part, WholeRows(rows, width));
    for (auto* part : {&keys.dk, &keys.dv}) plan.Add(*part, rows * width);
  }
  if (values > 0) {
    plan.Add(convolved_, rows * channels);
    plan.Add(mixed_, rows * channels);
    plan.Add(d_mixed_, rows * channels);
    plan.Add(d_state_in_, WholeRows(rows, channels));
    plan.Add(lengths_, rows * 2 * config_.delta.key_heads);
    plan.Add(state_out_, rows * values);
    plan.Add(gated_, WholeRows(rows, values));
    plan.Add(d_gated_, WholeRows(rows, values));
    plan.Add(d_z_, WholeRows(rows, values));
    plan.Add(d_alpha_, WholeRows(rows, ops::PadRank(config_.delta.value_heads)));
    plan.Add(d_beta_, WholeRows(rows, ops::PadRank(config_.delta.value_heads)));
  }
  if (config_.has_post_norms() || config_.per_layer_dim > 0) {
    plan.Add(branch_, rows * hidden);
    plan.Add(d_branch_, WholeRows(rows, hidden));
  }
  pieces_.Reserve(plan);
}

int64_t TrainLayer::bytes() const noexcept {
  return attention_.bytes() + state_.bytes() + linear_.bytes() + pieces_.bytes();
}

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

TrainLayer::At TrainLayer::Place(int64_t layer, const LayerBatch& batch) {
  const PhaseTimer timer(phases.weights);
  return {layer, batch, batch.weights->Layer(layer)};
}

bool TrainLayer::IsRead(int64_t layer) const {
  for (int64_t reader = layer + 1; reader < config_.num_layers; ++reader) {
    if (config_.kv_layer(reader) == layer) return true;
  }
  return false;
}

void TrainLayer::StartBackward(int64_t rows, const float* dx) {
  RoundDx(rows, dx);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    SharedKeys& keys = shared_keys_[static_cast<size_t>(layer)];
    if (keys.dk.empty()) continue;
    const int64_t size = rows * config_.kv_dim(layer);
    std::fill_n(keys.dk.data(), size, 0.0f);
    std::fill_n(keys.dv.data(), size, 0.0f);
  }
}

void TrainLayer::RoundDx(int64_t rows, const float* dx) {
  ops::TrainToBf16(kernels_, pool_, dx, dx_bf16_.data(), rows * config_.hidden_dim);
}

bool TrainLayer::HasBias(const At& at, TrainGroup group) const {
  const GroupShape shape = ShapeAt(at, group);
  bool any = false;
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    any = any || at.source().bias({static_cast<int32_t>(at.layer), shape.sites[i]}) != nullptr;
  }
  return any;
}

bool TrainLayer::FillBias(const At& at, TrainGroup group, float* out) const {
  if (!HasBias(at, group)) return false;
  const GroupShape shape = ShapeAt(at, group);
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const float* bias = at.source().bias({static_cast<int32_t>(at.layer), shape.sites[i]});
    const int64_t width = shape.out_begin[i + 1] - shape.out_begin[i];
    for (int64_t row = 0; row < at.rows(); ++row) {
      float* to = out + row * shape.out + shape.out_begin[i];
      if (bias == nullptr) {
        std::fill_n(to, width, 0.0f);
      } else {
        std::copy_n(bias, width, to);
      }
    }
  }
  return true;
}

void TrainLayer::AddMlpBias(const At& at, const ops::TrainUnit& unit, uint16_t* gate_up) const {
  const GroupShape shape = ShapeAt(at, TrainGroup::kGateUp);
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const float* bias = at.source().bias({static_cast<int32_t>(at.layer), shape.sites[i]});
    if (bias == nullptr) continue;
    for (int64_t row = unit.row; row < unit.row + unit.rows; ++row) {
      uint16_t* out = gate_up + row * shape.out + shape.out_begin[i];
      for (int64_t col = unit.col; col < unit.col + unit.cols; ++col) {
        out[col] = FloatToBF16(BF16ToFloat(out[col]) + bias[col]);
      }
    }
  }
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

void TrainLayer::LinearForward(const At& at, TrainGroup group, const uint16_t* x, LayerSaved& saved,
                               void* out, TrainStore store, const AfterUnit* after) {
  const PhaseTimer timer(phases.products);
  const uint16_t* own = at.panels + at.batch.weights->plan(at.layer).groups[Index(group)];
  PackedPairs& pairs = *at.batch.pairs;
  pairs.ScaleOutputs(at.layer, group, own, kernels_, pool_);
  bakestone::Forward(kernels_, pool_, ShapeAt(at, group), pairs.group(at.layer, group), own,
                     {.x = x,
                      .rows = at.rows(),
                      .xa = saved.xa[Index(group)].data(),
                      .out = out,
                      .store = store,
                      .after = after});
}

void TrainLayer::LinearAdd(const At& at, TrainGroup group, const uint16_t* x, LayerSaved& saved,
                           float* out) {
  const PackedPairs& pairs = *at.batch.pairs;
  if (!pairs.dora() || pairs.group(at.layer, group).r == 0) {
    return LinearForward(at, group, x, saved, out, TrainStore::kAddF32);
  }
  uint16_t* y = saved.y[Index(group)].data();
  LinearForward(at, group, x, saved, y, TrainStore::kBF16);
  ops::TrainAddBf16(kernels_, pool_, y, out, at.rows() * ShapeAt(at, group).out);
}

void TrainLayer::LinearBackward(const At& at, TrainGroup group, const uint16_t* dy,
                                const uint16_t* x, const LayerSaved& saved,
                                const Gradients& gradients, void* dx, TrainStore store,
                                const AfterUnit* after) {
  const GroupShape shape = ShapeAt(at, group);
  const uint16_t* transposed = nullptr;
  if (dx != nullptr) {
    const PhaseTimer timer(phases.weights);
    TrainWeights& weights = *at.batch.weights;
    transposed = weights.Transposed(at.panels + weights.plan(at.layer).groups[Index(group)],
                                    shape.out, shape.in);
  }
  bakestone::LinearBackward args = {
      .dy = dy,
      .x = x,
      .xa = saved.xa[Index(group)].data(),
      .y = group == TrainGroup::kGateUp ? saved.gate_up.data() : saved.y[Index(group)].data(),
      .rows = at.rows(),
      .dx = dx,
      .store = store,
      .after = after,
      .slots = {},
      .matrices = {},
      .gradients = gradients.out};
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const LinearId id{static_cast<int32_t>(at.layer), shape.sites[i]};
    args.slots[i] = gradients.layout->Find(id);
    args.matrices[i] = gradients.layout->FindMatrix(id);
  }
  const PhaseTimer timer(phases.products);
  bakestone::Backward(kernels_, pool_, shape, at.batch.pairs->group(at.layer, group), transposed,
                      args, linear_);
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
    if (IsRead(at.layer)) {
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

void TrainLayer::MixForward(const At& at, float* x, LayerSaved& saved) {
  switch (config_.mixer(at.layer)) {
    case Mixer::kConvolution:
      return ConvolutionForward(at, x, saved);
    case Mixer::kDeltaRule:
      return DeltaForward(at, x, saved);
    default:
      return config_.latent.kv_rank > 0 ? LatentForward(at, x, saved)
                                        : AttentionForward(at, x, saved);
  }
}

void TrainLayer::MixBackward(const At& at, const LayerSaved& saved, const Gradients& gradients) {
  switch (config_.mixer(at.layer)) {
    case Mixer::kConvolution:
      return ConvolutionBackward(at, saved, gradients);
    case Mixer::kDeltaRule:
      return DeltaBackward(at, saved, gradients);
    default:
      return config_.latent.kv_rank > 0 ? LatentBackward(at, saved, gradients)
                                        : AttentionBackward(at, saved, gradients);
  }
}

TrainGate TrainLayer::gate() const {
  switch (config_.mlp) {
    case MlpKind::kGeGlu:
      return TrainGate::kGelu;
    case MlpKind::kGelu:
      return TrainGate::kGeluAlone;
    case MlpKind::kClampedSwiGlu:
      return TrainGate::kClamped;
    default:
      return TrainGate::kSilu;
  }
}

TrainActivationArgs TrainLayer::SideBySide(const uint16_t* gate_up, int64_t rows,
                                           int64_t dim) const {
  const int64_t up = config_.gated() ? dim : 0;
  return {.gate = gate_up,
          .up = gate_up + up,
          .stride = up + dim,
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
TrainActivationArgs TrainLayer::Activation(const At& at, const LayerSaved& saved) {
  const int64_t dim = config_.ffn_width(at.layer);
  TrainActivationArgs args = SideBySide(saved.gate_up.data(), at.rows(), dim);
  args.factor = config_.residual_scale;
  args.act = act_.data();
  args.d_act = d_act_.data();
  args.d_gate = d_gate_up_.data();
  args.d_up = d_gate_up_.data() + dim;
  return args;
}

void TrainLayer::MlpActivation(const At& at, const uint16_t* input, LayerSaved& saved) {
  const TrainActivationArgs activation = Activation(at, saved);
  const bool has_bias = HasBias(at, TrainGroup::kGateUp);
  const AfterUnit activate = [&](const ops::TrainUnit& unit) {
    if (has_bias) AddMlpBias(at, unit, saved.gate_up.data());
    ops::TrainActivate(kernels_, gate(),
                       ops::ActivationPart(activation, unit.row, unit.rows, unit.col, unit.cols));
  };
  LinearForward(at, TrainGroup::kGateUp, input, saved, saved.gate_up.data(), TrainStore::kBF16,
                &activate);
}

void TrainLayer::MlpForward(const At& at, float* x, LayerSaved& saved) {
  const uint16_t* input =
      BranchInput(x, MlpNorm(at), at.rows(), saved.y_mlp.data(), saved.inverse_mlp.data());
  MlpActivation(at, input, saved);
  BranchOutput(at, TrainGroup::kDown, act_.data(), saved, x);
}

void TrainLayer::Forward(int64_t layer, const LayerBatch& batch, float* x, LayerSaved& saved) {
  const At at = Place(layer, batch);
  MixForward(at, x, saved);
  if (!config_.has_experts(layer)) {
    MlpForward(at, x, saved);
  } else if (config_.router.beside_mlp) {
    BesideForward(at, x, saved);
  } else {
    ExpertsForward(at, x, saved);
  }
  if (config_.per_layer_dim > 0) PerLayerForward(at, x, saved);
  if (config_.layer_scales) {
    const int64_t width = config_.hidden_dim;
    ops::TrainScale(pool_, at.source().layer(layer).output_scale, at.rows(), width, width, x);
  }
}

bool TrainLayer::MlpInnerBackward(const At& at, const uint16_t* dy, const LayerSaved& saved,
                                  const Gradients& gradients) {
  const TrainActivationArgs activation = Activation(at, saved);
  if (Ends(LayerStep::kDown, gradients)) {
    {
      const PhaseTimer timer(phases.rows);
      ops::TrainActivate(kernels_, pool_, gate(), activation);
    }
    LinearBackward(at, TrainGroup::kDown, dy, act_.data(), saved, gradients, nullptr,
                   TrainStore::kBF16);
    return false;
  }
  const AfterUnit activate = [&](const ops::TrainUnit& unit) {
    ops::TrainActivateBackward(
        kernels_, gate(),
        ops::ActivationPart(activation, unit.row, unit.rows, unit.col, unit.cols));
  };
  LinearBackward(at, TrainGroup::kDown, dy, act_.data(), saved, gradients, d_act_.data(),
                 TrainStore::kBF16, &activate);
  const uint16_t* input = BranchInputAgain(saved.y_mlp.data(), MlpNorm(at), at.rows());
  const bool ends = Ends(LayerStep::kGateUp, gradients);
  LinearBackward(at, TrainGroup::kGateUp, d_gate_up_.data(), input, saved, gradients,
                 ends ? nullptr : dh_.data(), TrainStore::kF32);
  return !ends;
}

void TrainLayer::MlpBackward(const At& at, const LayerSaved& saved, const Gradients& gradients) {
  const uint16_t* dy = BranchOutputBackward(at, TrainGroup::kDown, saved, gradients);
  if (!MlpInnerBackward(at, dy, saved, gradients)) return;
  const auto& norms = gradients.layout->mlp_norms;
  BranchInputBackward({saved.y_mlp.data(), saved.inverse_mlp.data(), MlpNorm(at).weight,
                       norms.empty() ? -1 : norms[static_cast<size_t>(at.layer)]},
                      at.rows(), gradients, !Ends(LayerStep::kMlpNorm, gradients));
}

// Of a layer that reads another's keys and values: theirs are kept for that layer. Of one that is
// read: theirs are added to its own, both in qkv_.
void TrainLayer::AddSharedGradients(const At& at, const QkvPlaces& places) {
  if (places.owns && !IsRead(at.layer)) return;
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

void TrainLayer::Backward(int64_t layer, const LayerBatch& batch, const LayerSaved& saved,
                          const Gradients& gradients) {
  const At at = Place(layer, batch);
  if (config_.layer_scales) {
    const int64_t width = config_.hidden_dim;
    ops::TrainScale(pool_, at.source().layer(layer).output_scale, at.rows(), width, width,
                    gradients.dx);
    RoundDx(at.rows(), gradients.dx);
  }
  if (config_.per_layer_dim > 0) PerLayerBackward(at, saved, gradients);
  if (!config_.has_experts(layer)) {
    MlpBackward(at, saved, gradients);
  } else if (config_.router.beside_mlp) {
    BesideBackward(at, saved, gradients);
  } else {
    ExpertsBackward(at, saved, gradients);
  }
  if (!gradients.below && gradients.lowest >= LayerStep::kMlpNorm) return;
  MixBackward(at, saved, gradients);
}

}  // namespace bakestone
