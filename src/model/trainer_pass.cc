#include "model/trainer_pass.h"

#include "model/train_engine.h"

namespace bakestone {

struct TrainerPass::Impl {
  TrainEngine engine;
};

TrainerPass::TrainerPass(const Decoder& decoder, const TrainLayout& layout, float pair_scale,
                         const KernelTable& kernels, ThreadPool& pool, PassOptions options)
    : impl_(new Impl{{decoder.config(), SourceOf(decoder.weights(), kernels), layout, pair_scale,
                      kernels.train, pool, options}}) {}

TrainerPass::~TrainerPass() = default;

void TrainerPass::SetValues(std::span<const float> values) { impl_->engine.SetValues(values); }

LossSums TrainerPass::Evaluate(const TrainBatch& batch, const Objective& objective) {
  return impl_->engine.Evaluate(batch, objective);
}
LossSums TrainerPass::EvaluateBase(const TrainBatch& batch) {
  return impl_->engine.EvaluateBase(batch);
}

void TrainerPass::DocumentLogProbs(const TrainBatch& batch, bool length_normalized,
                                   std::span<double> out) {
  impl_->engine.DocumentLogProbs(batch, length_normalized, out);
}

LossSums TrainerPass::ForwardBackward(const TrainBatch& batch, const Objective& objective,
                                      std::span<float> gradients) {
  return impl_->engine.ForwardBackward(batch, objective, gradients);
}

int64_t TrainerPass::peak_bytes() const noexcept { return impl_->engine.peak_bytes(); }

}  // namespace bakestone
