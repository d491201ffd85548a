#include "model/train_panels.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "ops/train_products.h"

namespace bakestone {
namespace {

void CheckDimension(std::string_view name, int64_t value) {
  if (value <= 0 || value % kTrainLanes != 0) {
    Throw(ErrorCode::kUnsupported,
          "training: expected a {} that is a positive multiple of {}, found {}; this model can be "
          "served but not trained",
          name, kTrainLanes, value);
  }
}

}  // namespace

GroupShape ShapeOf(const ModelConfig& config, int64_t layer, TrainGroup group, int64_t expert) {
  constexpr std::array kQkv = {Site::kQ, Site::kK, Site::kV}, kO = {Site::kO, Site::kO, Site::kO};
  constexpr std::array kGateUp = {Site::kGate, Site::kUp, Site::kUp};
  constexpr std::array kDown = {Site::kDown, Site::kDown, Site::kDown};
  const std::pair<std::array<Site, 3>, size_t> sites[] = {
      {kQkv, 3}, {kO, 1}, {kGateUp, 2}, {kDown, 1}};
  const auto& [all, count] = sites[static_cast<size_t>(group)];
  GroupShape shape;
  for (size_t i = 0; i < count; ++i) {
    const LinearId id{static_cast<int32_t>(layer), all[i], static_cast<int32_t>(expert)};
    if (!HasSite(config, id)) continue;
    const LinearShape own = bakestone::ShapeOf(config, id);
    const auto at = static_cast<size_t>(shape.num_sites++);
    shape.in = own.k;
    shape.sites[at] = id.site;
    shape.out_begin[at] = shape.out;
    shape.out += own.n;
    shape.out_begin[at + 1] = shape.out;
  }
  return shape;
}

namespace {

LinearShape LatentShapeOf(const ModelConfig& config, FrozenSite site) {
  const LatentConfig& latent = config.latent;
  const int64_t hidden = config.hidden_dim, heads = config.num_heads;
  switch (site) {
    case FrozenSite::kLatentQueriesDown:
      return {latent.q_rank, latent.q_rank > 0 ? hidden : 0};
    case FrozenSite::kLatentQueries:
      return {heads * latent.key_dim(), latent.q_rank > 0 ? latent.q_rank : hidden};
    case FrozenSite::kLatentDown:
      return {latent.kv_rank + latent.rope_dim, hidden};
    case FrozenSite::kLatentKeys:
      return {heads * latent.nope_dim, latent.kv_rank};
    default:
      return {heads * latent.value_dim, latent.kv_rank};
  }
}

LinearShape DeltaShapeOf(const ModelConfig& config, FrozenSite site) {
  const DeltaConfig& delta = config.delta;
  const int64_t hidden = config.hidden_dim, values = delta.value_heads * delta.value_dim;
  if (site == FrozenSite::kDeltaQkv) return {delta.channels(), hidden};
  if (site == FrozenSite::kDeltaZ) return {values, hidden};
  if (site == FrozenSite::kDeltaOut) return {hidden, values};
  return {delta.value_heads, hidden};  // alpha, beta
}

}  // namespace

LinearShape ShapeOf(const ModelConfig& config, int64_t layer, FrozenSite site) {
  const int64_t hidden = config.hidden_dim;
  const Mixer mixer = config.mixer(layer);
  const RouterConfig& router = config.router;
  const bool shared = config.has_experts(layer) && router.shared_dim > 0;
  switch (site) {
    case FrozenSite::kRouter:
      return config.has_experts(layer) ? LinearShape{router.experts, hidden} : LinearShape{};
    case FrozenSite::kSharedGate:
    case FrozenSite::kSharedUp:
      return shared ? LinearShape{router.shared_dim, hidden} : LinearShape{};
    case FrozenSite::kSharedDown:
      return shared ? LinearShape{hidden, router.shared_dim} : LinearShape{};
    case FrozenSite::kSharedShare:
      return shared && router.shared_gate ? LinearShape{1, hidden} : LinearShape{};
    case FrozenSite::kOutputGate:
      return config.output_gate && mixer == Mixer::kAttention
                 ? LinearShape{config.q_dim(layer), hidden}
                 : LinearShape{};
    case FrozenSite::kConvolutionIn:
      return mixer == Mixer::kConvolution ? LinearShape{3 * hidden, hidden} : LinearShape{};
    case FrozenSite::kConvolutionOut:
      return mixer == Mixer::kConvolution ? LinearShape{hidden, hidden} : LinearShape{};
    case FrozenSite::kLayerGate:
      return {config.per_layer_dim, config.per_layer_dim > 0 ? hidden : 0};
    case FrozenSite::kLayerOut:
      return {config.per_layer_dim > 0 ? hidden : 0, config.per_layer_dim};
    case FrozenSite::kLatentQueriesDown:
    case FrozenSite::kLatentQueries:
    case FrozenSite::kLatentDown:
    case FrozenSite::kLatentKeys:
    case FrozenSite::kLatentValues:
      return config.latent.kv_rank > 0 ? LatentShapeOf(config, site) : LinearShape{};
    default:
      return mixer == Mixer::kDeltaRule ? DeltaShapeOf(config, site) : LinearShape{};
  }
}

PanelPlan PlanPanels(const ModelConfig& config, int64_t layer) {
  PanelPlan plan;
  const auto add = [&](int64_t n, int64_t k) {
    const int64_t begin = plan.size, size = ops::PanelSize(n, k);
    plan.size += size;
    plan.largest = std::max(plan.largest, size);
    plan.widest = std::max(plan.widest, k);
    return begin;
  };
  for (int group = 0; group < kNumTrainGroups; ++group) {
    const GroupShape shape = ShapeOf(config, layer, static_cast<TrainGroup>(group));
    plan.groups[static_cast<size_t>(group)] = add(shape.out, shape.in);
  }
  for (int site = 0; site < kNumFrozenSites; ++site) {
    const LinearShape shape = ShapeOf(config, layer, static_cast<FrozenSite>(site));
    plan.frozen[static_cast<size_t>(site)] = add(shape.n, shape.k);
  }
  if (!config.has_experts(layer)) return plan;
  const GroupShape inner = ShapeOf(config, layer, TrainGroup::kGateUp, 0),
                   outer = ShapeOf(config, layer, TrainGroup::kDown, 0);
  plan.experts = config.router.experts;
  plan.expert_down = ops::PanelSize(inner.out, inner.in);
  plan.expert_size = plan.expert_down + ops::PanelSize(outer.out, outer.in);
  plan.largest = std::max({plan.largest, plan.expert_down, plan.expert_size - plan.expert_down});
  plan.widest = std::max({plan.widest, inner.in, outer.in});
  return plan;
}

const Weight& FrozenWeight(const LayerWeights& layer, FrozenSite site) {
  switch (site) {
    case FrozenSite::kRouter:
      return layer.router;
    case FrozenSite::kSharedGate:
      return layer.shared.gate;
    case FrozenSite::kSharedUp:
      return layer.shared.up;
    case FrozenSite::kSharedDown:
      return layer.shared.down;
    case FrozenSite::kSharedShare:
      return layer.shared_gate;
    case FrozenSite::kOutputGate:
      return layer.output_gate;
    case FrozenSite::kConvolutionIn:
      return layer.convolution->in;
    case FrozenSite::kConvolutionOut:
      return layer.convolution->out;
    case FrozenSite::kDeltaQkv:
      return layer.delta->qkv;
    case FrozenSite::kDeltaZ:
      return layer.delta->z;
    case FrozenSite::kDeltaAlpha:
      return layer.delta->alpha;
    case FrozenSite::kDeltaBeta:
      return layer.delta->beta;
    case FrozenSite::kDeltaOut:
      return layer.delta->out;
    case FrozenSite::kLayerGate:
      return layer.per_layer->gate;
    case FrozenSite::kLayerOut:
      return layer.per_layer->out;
    case FrozenSite::kLatentQueriesDown:
      return layer.latent->q_a;
    case FrozenSite::kLatentQueries:
      return layer.latent->q_b;
    case FrozenSite::kLatentDown:
      return layer.latent->kv_a;
    case FrozenSite::kLatentKeys:
      return layer.latent->k_b;
    case FrozenSite::kLatentValues:
      return layer.latent->v_b;
  }
  BAKESTONE_CHECK(false && "a site outside the enum");
  return layer.router;
}

// Panels are whole: what a matrix takes and what a trained one gives are multiples of 16.
void CheckPanels(const ModelConfig& config) {
  CheckDimension("hidden_dim", config.hidden_dim);
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int site = 0; site < kNumSites; ++site) {
      for (int32_t expert = -1; expert < std::min<int64_t>(config.router.experts, 1); ++expert) {
        const LinearId id{layer, static_cast<Site>(site), expert};
        if (!HasSite(config, id)) continue;
        const LinearShape shape = ShapeOf(config, id);
        CheckDimension(fmt::format("width of {}", LinearName(id)), shape.n);
        CheckDimension(fmt::format("width of what {} takes", LinearName(id)), shape.k);
      }
    }
    for (int i = 0; i < kNumFrozenSites; ++i) {
      const LinearShape shape = ShapeOf(config, layer, static_cast<FrozenSite>(i));
      if (shape.n == 0) continue;
      CheckDimension(fmt::format("width of a frozen matrix's input in layer {}", layer), shape.k);
      // Of what is no wider than heads or experts, gradients are padded.
      constexpr FrozenSite kPadded[] = {FrozenSite::kRouter, FrozenSite::kSharedShare,
                                        FrozenSite::kDeltaAlpha, FrozenSite::kDeltaBeta,
                                        FrozenSite::kLatentDown};
      const bool padded = std::find(std::begin(kPadded), std::end(kPadded),
                                    static_cast<FrozenSite>(i)) != std::end(kPadded);
      if (!padded)
        CheckDimension(fmt::format("width of a frozen matrix in layer {}", layer), shape.n);
    }
  }
}

}  // namespace bakestone
