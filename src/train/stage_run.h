// One stage under way: masters, moments, the pass that fills the gradients, and the optimizer's
// step. One thread at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "model/trainer_pass.h"
#include "tensor/aligned_vector.h"
#include "train/checkpoint.h"
#include "train/step_source.h"
#include "train/train_speed.h"
#include "train/trainer.h"

namespace bakestone {

// Of held-out samples: mean nats a trained token and the share of them that is right; with DPO of a
// preference.
struct HeldoutScore {
  double loss = 0, accuracy = 0;
};

class StageRun {
 public:
  // Keeps references.
  StageRun(const Model& model, const Recipe& recipe, const StageRecipe& stage,
           const KernelTable& kernels, ThreadPool& pool, const TrainOptions& options);

  const TrainLayout& layout() const { return layout_; }
  Adapter& adapter() { return adapter_; }
  Checkpoint& state() { return state_; }

  // After every change of state().masters.
  void Refresh();
  // One optimizer step at this learning rate. Throws kInvalidArgument when the loss is no longer
  // finite.
  void Step(const StepBatches& batches, double rate, StepReport* report);
  // Of the masters as they are, over samples of up to stage.heldout_tokens. references: of the
  // set's own units.
  HeldoutScore Score(const Dataset& heldout, const References& references);
  AnswerScore ScoreAnswers(const Dataset& answers);
  // Losses of a batch under the values as they are, and beside them the KL to the base if asked
  // for; and the base's.
  LossSums Evaluate(const PackedBatch& batch, bool kl_to_base) {
    return pass_.Evaluate(batch.View(), {.kl_to_base = kl_to_base});
  }
  LossSums EvaluateBase(const PackedBatch& batch) { return pass_.EvaluateBase(batch.View()); }
  // Log-probabilities of every preference of the set under these values; the masters stay as they
  // are.
  References Reference(const Dataset& data, std::span<const float> values);
  int64_t peak_bytes() const noexcept { return pass_.peak_bytes(); }

 private:
  LossSums EvaluateAll(const std::vector<PackedBatch>& batches);
  std::vector<int64_t> FirstUnits(const Dataset& data) const;
  LossSums Accumulate(const std::vector<PackedBatch>& batches, double scale, bool kl);
  double FlopOf(const StepBatches& batches) const;
  double ReplayWeight(const StepBatches& batches) const;
  void Update(double rate, double norm);

  const Recipe& recipe_;
  const StageRecipe& stage_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  const int64_t batch_tokens_;
  TrainLayout layout_;
  const TrainWork work_;
  Adapter adapter_;
  TrainerPass pass_;
  Checkpoint state_;
  AlignedVector<float> gradients_;
};

}  // namespace bakestone
