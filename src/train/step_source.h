// The samples of each step of a stage, packed into micro-batches. What a step draws is a function
// of (seed, stage, step): nothing to save. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "train/batches.h"
#include "train/dataset.h"
#include "train/recipe.h"

namespace bakestone {

struct StageData;

// Log-probabilities of both samples of each preference before training; empty without preferences.
struct References {
  std::vector<double> chosen, rejected;  // [units]
};

struct StepBatches {
  std::vector<PackedBatch> train, replay;
  int64_t train_rows = 0, replay_rows = 0, tokens = 0;
  int64_t pairs = 0;  // preferences
};

class StepSource {
 public:
  // Keeps references.
  StepSource(const StageData& data, const StageRecipe& stage, const References& references,
             uint64_t seed, int64_t batch_tokens);

  // Skips what steps before `step` used, without packing it.
  void SkipTo(int64_t step);
  StepBatches Next();

 private:
  void Draw();

  const StageData& data_;
  const StageRecipe& stage_;
  const References& references_;
  const int64_t batch_tokens_;
  SampleOrder order_, replay_order_;
  int64_t next_ = 0, next_replay_ = 0, train_tokens_ = 0, replay_tokens_ = 0;
  std::vector<int64_t> units_;  // of this step
  std::vector<Sample> joined_;
  std::vector<SampleView> samples_, replay_samples_;
};

// Preferences of a set, packed: each batch holds whole pairs.
std::vector<PackedBatch> PackPreferences(const Dataset& data, std::span<const int64_t> units,
                                         const References& references, int64_t max_tokens);

}  // namespace bakestone
