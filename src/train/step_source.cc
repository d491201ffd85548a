#include "train/step_source.h"

#include <algorithm>

#include "train/streams.h"
#include "train/trainer.h"

namespace bakestone {
namespace {

std::vector<SampleOrder::Part> PartsOf(const Dataset& data) {
  std::vector<SampleOrder::Part> parts;
  for (const Dataset::Part& part : data.parts()) parts.push_back({part.size, part.weight});
  return parts;
}

int64_t Rows(const std::vector<PackedBatch>& batches) {
  int64_t rows = 0;
  for (const PackedBatch& batch : batches) rows += static_cast<int64_t>(batch.loss_rows.size());
  return rows;
}

}  // namespace

StepSource::StepSource(const StageData& data, const StageRecipe& stage,
                       const References& references, uint64_t seed, int64_t batch_tokens)
    : data_(data),
      stage_(stage),
      references_(references),
      batch_tokens_(batch_tokens),
      order_(PartsOf(data.train), seed, kDataStream),
      replay_order_(std::max<int64_t>(1, data.replay.size()), seed, kReplayStream) {}

void StepSource::SkipTo(int64_t step) {
  for (int64_t i = 0; i < step; ++i) Draw();
}

StepBatches StepSource::Next() {
  Draw();
  StepBatches batches;
  if (stage_.method == TrainMethod::kDpo) {
    batches.train = PackPreferences(data_.train, units_, references_, batch_tokens_);
    batches.pairs = static_cast<int64_t>(units_.size());
  } else {
    batches.train = Pack(samples_, batch_tokens_);
  }
  batches.replay = Pack(replay_samples_, batch_tokens_);
  batches.train_rows = Rows(batches.train);
  batches.replay_rows = Rows(batches.replay);
  for (const auto* side : {&batches.train, &batches.replay}) {
    for (const PackedBatch& batch : *side) {
      batches.tokens += static_cast<int64_t>(batch.tokens.size());
    }
  }
  return batches;
}

// Replay keeps its share over the steps as a whole: the pieces of a step are those that the running
// total asks for, so the cursor is a function of the step.
void StepSource::Draw() {
  units_.clear();
  samples_.clear();
  replay_samples_.clear();
  for (int64_t i = 0; i < stage_.batch; ++i) units_.push_back(order_.At(next_++));
  for (const int64_t unit : units_) {
    for (int64_t which = 0; which < data_.train.unit(); ++which) {
      samples_.push_back(data_.train.At(unit, which));
    }
  }
  if (stage_.join > 1) {
    joined_ = Join(samples_, stage_.join, stage_.sequence_length);
    samples_.clear();
    for (const Sample& sample : joined_) samples_.push_back(sample.View());
  }
  for (const SampleView& sample : samples_) {
    train_tokens_ += static_cast<int64_t>(sample.tokens.size());
  }
  if (!stage_.replay || data_.replay.size() == 0) return;
  const double wanted =
      static_cast<double>(train_tokens_) * stage_.replay->share / (1 - stage_.replay->share);
  while (static_cast<double>(replay_tokens_) < wanted) {
    const SampleView sample = data_.replay.At(replay_order_.At(next_replay_++));
    replay_tokens_ += static_cast<int64_t>(sample.tokens.size());
    replay_samples_.push_back(sample);
  }
}

std::vector<PackedBatch> PackPreferences(const Dataset& data, std::span<const int64_t> units,
                                         const References& references, int64_t max_tokens) {
  std::vector<PackedBatch> batches;
  for (const int64_t unit : units) {
    const SampleView chosen = data.At(unit, 0), rejected = data.At(unit, 1);
    const auto size = static_cast<int64_t>(chosen.tokens.size() + rejected.tokens.size());
    if (batches.empty() || static_cast<int64_t>(batches.back().tokens.size()) + size > max_tokens) {
      batches.emplace_back();
    }
    PackedBatch& batch = batches.back();
    PreferencePair pair;
    pair.chosen = static_cast<int32_t>(batch.document_begins.size());
    pair.rejected = pair.chosen + 1;
    if (!references.chosen.empty()) {
      pair.reference_chosen = references.chosen[static_cast<size_t>(unit)];
      pair.reference_rejected = references.rejected[static_cast<size_t>(unit)];
    }
    batch.Add(chosen);
    batch.Add(rejected);
    batch.pairs.push_back(pair);
  }
  return batches;
}

}  // namespace bakestone
