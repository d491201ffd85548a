#include "model/trainer_pass.h"

#include <algorithm>

#include "base/error.h"
#include "model/train_engine.h"

namespace bakestone {
LoraLayout LoraLayout::Make(const ModelConfig& config, std::span<const Site> targets, int64_t rank) {
  if (targets.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "LoRA targets: expected at least one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
          "down_proj, found none");
  }
  if (rank < 1 || rank > 1024) {
    Throw(ErrorCode::kInvalidArgument, "LoRA rank: expected 1 to 1024, found {}", rank);
  }
  LoraLayout layout;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (int site = 0; site < kNumSites; ++site) {
      const LinearId id{static_cast<int32_t>(layer), static_cast<Site>(site)};
      if (std::find(targets.begin(), targets.end(), id.site) == targets.end()) continue;
      const LinearShape shape = ShapeOf(config, id.site);
      layout.slots.push_back({.id = id,
                              .rank = rank,
                              .in = shape.k,
                              .out = shape.n,
                              .a_offset = layout.size,
                              .b_offset = layout.size + rank * shape.k});
      layout.size += rank * (shape.k + shape.n);
    }
  }
  return layout;
}

const LoraSlot* LoraLayout::Find(LinearId id) const noexcept {
  const auto at = std::lower_bound(
      slots.begin(), slots.end(), id,
      [](const LoraSlot& slot, LinearId wanted) { return slot.id.index() < wanted.index(); });
  return at != slots.end() && at->id == id ? &*at : nullptr;
}

struct TrainerPass::Impl {
  TrainEngine engine;
};

TrainerPass::TrainerPass(const Decoder& decoder, const KernelTable& kernels, ThreadPool& pool,
                         PassOptions options)
    : impl_(new Impl{TrainEngine(decoder.config(), SourceOf(decoder.weights(), kernels), kernels.train, pool,
                                 options)}) {}

TrainerPass::~TrainerPass() = default;

LossSums TrainerPass::Evaluate(const TrainBatch& batch, const Adapter* adapter) {
  return impl_->engine.Evaluate(batch, adapter);
}

LossSums TrainerPass::ForwardBackward(const TrainBatch& batch, const Adapter& adapter,
                                      const LoraLayout& layout, float gradient_scale,
                                      bool kl_to_base, std::span<float> gradients) {
  return impl_->engine.ForwardBackward(batch, adapter, layout, gradient_scale, kl_to_base, gradients);
}

int64_t TrainerPass::peak_bytes() const noexcept { return impl_->engine.peak_bytes(); }

}  // namespace bakestone
