// What a stage is judged by while it trains: now and then the loss of the held-out side, and the
// share of a question file that the model answers exactly. The best values so far are kept where
// the recipe asks for them, and a stage that gets no better is ended.
#pragma once

#include <filesystem>

#include "train/stage_run.h"

namespace bakestone {

class HeldoutWatch {
 public:
  // Keeps references. references: of the held-out side's units. best_path: file for the best
  // values.
  HeldoutWatch(const StageRecipe& stage, const StageData& data, const References& references,
               std::filesystem::path best_path, int64_t num_steps);

  bool Due(int64_t step) const { return step % every_ == 0 || step == num_steps_; }
  // Measures what is due after the run's last step. True if the stage is to stop.
  bool Look(StageRun* run, StepReport* report) const;
  // Puts the values that the stage ends with into `state`. Throws kCorrupt where they were lost.
  void TakeBest(Checkpoint* state) const;

 private:
  bool IsBetter(const Checkpoint& state, const StepReport& report) const;
  void WriteBest(const Checkpoint& state) const;

  const StageRecipe& stage_;
  const StageData& data_;
  const References& references_;
  const std::filesystem::path best_path_;
  const int64_t every_, num_steps_;
};

}  // namespace bakestone
