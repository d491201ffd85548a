#include "model/train_layer.h"

#include <algorithm>

#include "model/phase_timer.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

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

TrainLayer::TrainLayer(const ModelConfig& config, const TrainKernels& kernels, ThreadPool& pool)
    : config_(config),
      kernels_(kernels),
      pool_(pool),
      attention_(kernels, pool),
      state_(kernels, pool),
      row_scratch_(static_cast<size_t>(pool.num_threads())) {}

int64_t TrainLayer::bytes() const noexcept {
  return attention_.bytes() + state_.bytes() + linear_.bytes() + pieces_.bytes();
}

TrainLayer::At TrainLayer::Place(int64_t layer, const LayerBatch& batch) {
  const PhaseTimer timer(phases.weights);
  return {layer, batch, batch.weights->Layer(layer)};
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
