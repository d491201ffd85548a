#include "train/stage_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "ops/train_ops.h"
#include "train/trained.h"

namespace bakestone {
namespace {

double Mean(double sum, double count) { return sum / std::max(1.0, count); }

}  // namespace

StageRun::StageRun(const Model& model, const Recipe& recipe, const StageRecipe& stage,
                   const KernelTable& kernels, ThreadPool& pool, const TrainOptions& options)
    : recipe_(recipe),
      stage_(stage),
      kernels_(kernels),
      pool_(pool),
      batch_tokens_(options.batch_tokens),
      layout_(LayoutOf(model, recipe)),
      work_(WorkOf(model, layout_)),
      adapter_(model.config, recipe.name),
      pass_(
          *model.decoder, layout_, PairScale(recipe.lora), kernels, pool,
          {.activation = options.activation == Activation::kRecompute ? ActivationPolicy::kRecompute
                                                                      : ActivationPolicy::kStash,
           .weight_cache_bytes = options.weight_cache_bytes}) {}

void StageRun::Refresh() {
  SetAdapter(layout_, state_.masters, recipe_.lora, &adapter_);
  pass_.SetValues(state_.masters);
}

void StageRun::Step(const StepBatches& batches, double rate, StepReport* report) {
  gradients_.assign(static_cast<size_t>(layout_.size), 0.0f);
  const bool dpo = stage_.method == TrainMethod::kDpo;
  const int64_t count = dpo ? batches.pairs : batches.train_rows;
  const LossSums train =
      Accumulate(batches.train, 1.0 / static_cast<double>(std::max<int64_t>(1, count)), false);
  const bool kl = stage_.replay && stage_.replay->kl_weight > 0;
  const double weight = kl ? stage_.replay->kl_weight : ReplayWeight(batches);
  const LossSums replay = Accumulate(
      batches.replay, weight / static_cast<double>(std::max<int64_t>(1, batches.replay_rows)), kl);
  const double norm = ops::GradientNorm(kernels_.train, pool_, gradients_);
  const double loss = dpo ? train.preference : train.nll;
  if (!std::isfinite(norm) || !std::isfinite(loss)) {
    Throw(ErrorCode::kInvalidArgument,
          "stage '{}', step {}: the loss is no longer a finite number; lower 'learning_rate' (now "
          "{:g}) or 'clip' "
          "(now {:g}) and run again",
          stage_.name, state_.step + 1, stage_.learning_rate, stage_.clip);
  }
  report->learning_rate = rate;
  Update(rate, norm);
  Refresh();
  ++state_.step;
  state_.tokens += batches.tokens;
  report->step = state_.step;
  report->gradient_norm = norm;
  report->loss = Mean(loss, dpo ? static_cast<double>(train.pairs) : train.weight);
  report->accuracy =
      dpo ? Mean(static_cast<double>(train.pairs_right), static_cast<double>(train.pairs))
          : Mean(static_cast<double>(train.correct), static_cast<double>(train.rows));
  report->reward_margin =
      Mean(train.chosen_reward - train.rejected_reward, static_cast<double>(train.pairs));
  report->replay_loss = Mean(kl ? replay.kl : replay.nll, replay.weight);
  report->tokens = state_.tokens;
  report->flop = FlopOf(batches);
}

// The base's forward, which KL needs beside the model's own, is half of what is counted for a row.
double StageRun::FlopOf(const StepBatches& batches) const {
  double macs = 0;
  const auto add = [&](const std::vector<PackedBatch>& side, double more) {
    for (const PackedBatch& batch : side) {
      macs += more * (static_cast<double>(batch.tokens.size()) * work_.row +
                      static_cast<double>(batch.loss_rows.size()) * work_.loss_row);
      for (const int32_t position : batch.positions) macs += more * (position + 1) * work_.seen;
    }
  };
  add(batches.train, 1);
  add(batches.replay, stage_.replay && stage_.replay->kl_weight > 0 ? 1.5 : 1);
  return 2 * macs;
}

// Elementwise, so the split into runs of one rate and decay changes no bit.
void StageRun::Update(double rate, double norm) {
  const double scale = ops::ClipScale(norm, stage_.clip);
  const auto& tensors = layout_.tensors;
  for (size_t first = 0; first < tensors.size();) {
    size_t last = first;
    while (last < tensors.size() && tensors[last].decays == tensors[first].decays &&
           tensors[last].embedding == tensors[first].embedding) {
      ++last;
    }
    const auto begin = static_cast<size_t>(tensors[first].offset);
    const auto size =
        static_cast<size_t>(tensors[last - 1].offset + tensors[last - 1].size()) - begin;
    const auto part = [&](auto& values) { return std::span(values).subspan(begin, size); };
    ops::AdamW(kernels_.train, pool_,
               {.learning_rate = tensors[first].embedding ? rate * stage_.embedding_rate : rate,
                .beta1 = stage_.beta1,
                .beta2 = stage_.beta2,
                .weight_decay = tensors[first].decays ? stage_.weight_decay : 0,
                .gradient_scale = scale,
                .step = state_.step + 1},
               part(state_.masters), part(state_.first_moments), part(state_.second_moments),
               part(gradients_));
    first = last;
  }
}

// Plain replay counts every token alike, trained or replayed; beside preferences it has its share.
double StageRun::ReplayWeight(const StepBatches& batches) const {
  if (stage_.method == TrainMethod::kDpo && stage_.replay) {
    return stage_.replay->share / (1 - stage_.replay->share);
  }
  return static_cast<double>(batches.replay_rows) /
         static_cast<double>(std::max<int64_t>(1, batches.train_rows));
}

LossSums StageRun::Accumulate(const std::vector<PackedBatch>& batches, double scale, bool kl) {
  LossSums sums;
  for (const PackedBatch& batch : batches) {
    if (batch.loss_rows.empty()) continue;
    sums += pass_.ForwardBackward(batch.View(),
                                  {.gradient_scale = static_cast<float>(scale),
                                   .kl_to_base = kl,
                                   .pairs = batch.pairs,
                                   .beta = stage_.beta,
                                   .length_normalized = stage_.length_normalized},
                                  gradients_);
  }
  return sums;
}

// As many from the start as stage.heldout_tokens allows.
std::vector<int64_t> StageRun::FirstUnits(const Dataset& data) const {
  std::vector<int64_t> units;
  int64_t tokens = 0;
  for (int64_t unit = 0; unit < data.size() && tokens < stage_.heldout_tokens; ++unit) {
    units.push_back(unit);
    for (int64_t which = 0; which < data.unit(); ++which) {
      tokens += static_cast<int64_t>(data.At(unit, which).tokens.size());
    }
  }
  return units;
}

LossSums StageRun::EvaluateAll(const std::vector<PackedBatch>& batches) {
  LossSums sums;
  for (const PackedBatch& batch : batches) {
    if (batch.loss_rows.empty()) continue;
    sums += pass_.Evaluate(
        batch.View(),
        {.pairs = batch.pairs, .beta = stage_.beta, .length_normalized = stage_.length_normalized});
  }
  return sums;
}

HeldoutScore StageRun::Score(const Dataset& heldout, const References& references) {
  const std::vector<int64_t> units = FirstUnits(heldout);
  if (stage_.method == TrainMethod::kDpo) {
    const LossSums sums = EvaluateAll(PackPreferences(heldout, units, references, batch_tokens_));
    const auto pairs = static_cast<double>(sums.pairs);
    return {Mean(sums.preference, pairs), Mean(static_cast<double>(sums.pairs_right), pairs)};
  }
  std::vector<SampleView> samples;
  for (const int64_t unit : units) samples.push_back(heldout.At(unit));
  const LossSums sums = EvaluateAll(Pack(samples, batch_tokens_));
  return {Mean(sums.nll, sums.weight),
          Mean(static_cast<double>(sums.correct), static_cast<double>(sums.rows))};
}

// A greedy answer is the file's where every one of its tokens is the likeliest after those before.
AnswerScore StageRun::ScoreAnswers(const Dataset& answers) {
  std::vector<SampleView> samples;
  for (const int64_t unit : FirstUnits(answers)) samples.push_back(answers.At(unit));
  const LossSums sums = EvaluateAll(Pack(samples, batch_tokens_));
  return {Mean(static_cast<double>(sums.documents_right), static_cast<double>(sums.documents)),
          Mean(sums.nll, sums.weight)};
}

References StageRun::Reference(const Dataset& data, std::span<const float> values) {
  constexpr int64_t kUnits = 256;  // packed at a time
  References references;
  pass_.SetValues(values);
  for (int64_t begin = 0; begin < data.size(); begin += kUnits) {
    std::vector<int64_t> units(static_cast<size_t>(std::min(kUnits, data.size() - begin)));
    std::iota(units.begin(), units.end(), begin);
    for (const PackedBatch& batch : PackPreferences(data, units, {}, batch_tokens_)) {
      std::vector<double> log_probs(batch.document_begins.size());
      pass_.DocumentLogProbs(batch.View(), stage_.length_normalized, log_probs);
      for (const PreferencePair& pair : batch.pairs) {
        references.chosen.push_back(log_probs[static_cast<size_t>(pair.chosen)]);
        references.rejected.push_back(log_probs[static_cast<size_t>(pair.rejected)]);
      }
    }
  }
  return references;
}

}  // namespace bakestone
