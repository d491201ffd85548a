#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "ops/train_ops.h"
#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/step_log.h"
#include "train/streams.h"
#include "train/trained.h"

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// The samples of one step, packed.
struct StepBatches {
  std::vector<PackedBatch> train, replay;
  int64_t train_rows = 0, replay_rows = 0, tokens = 0;
};

int64_t Rows(const std::vector<PackedBatch>& batches) {
  int64_t rows = 0;
  for (const PackedBatch& batch : batches) rows += static_cast<int64_t>(batch.loss_rows.size());
  return rows;
}

std::vector<SampleOrder::Part> PartsOf(const Dataset& data) {
  std::vector<SampleOrder::Part> parts;
  for (const Dataset::Part& part : data.parts()) parts.push_back({part.size, part.weight});
  return parts;
}

// Draws the samples of ascending steps. Replay keeps its share over the steps as a whole: the pieces
// of a step are those that the running total asks for, so the cursor is a function of the step.
class StepSource {
 public:
  StepSource(const StageData& data, const StageRecipe& stage, uint64_t seed, int64_t batch_tokens)
      : data_(data),
        stage_(stage),
        batch_tokens_(batch_tokens),
        order_(PartsOf(data.train), seed, kDataStream),
        replay_order_(std::max<int64_t>(1, data.replay.size()), seed,
                      kReplayStream) {}

  // Skips what steps before `step` used, without packing it.
  void SkipTo(int64_t step) {
    for (int64_t i = 0; i < step; ++i) Draw();
  }

  StepBatches Next() {
    Draw();
    StepBatches batches;
    batches.train = Pack(samples_, batch_tokens_);
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

 private:
  void Draw() {
    samples_.clear();
    replay_samples_.clear();
    for (int64_t i = 0; i < stage_.batch; ++i) {
      samples_.push_back(data_.train.At(order_.At(next_++)));
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
    const double wanted = static_cast<double>(train_tokens_) * stage_.replay->share /
                          (1 - stage_.replay->share);
    while (static_cast<double>(replay_tokens_) < wanted) {
      const SampleView sample = data_.replay.At(replay_order_.At(next_replay_++));
      replay_tokens_ += static_cast<int64_t>(sample.tokens.size());
      replay_samples_.push_back(sample);
    }
  }

  const StageData& data_;
  const StageRecipe& stage_;
  const int64_t batch_tokens_;
  SampleOrder order_, replay_order_;
  int64_t next_ = 0, next_replay_ = 0, train_tokens_ = 0, replay_tokens_ = 0;
  std::vector<Sample> joined_;  // of this step
  std::vector<SampleView> samples_, replay_samples_;
};

// One stage under way: masters, moments, and the pass that fills the gradients.
class StageRun {
 public:
  StageRun(const Model& model, const Recipe& recipe, const StageRecipe& stage,
           const KernelTable& kernels, ThreadPool& pool, const TrainOptions& options)
      : recipe_(recipe),
        stage_(stage),
        kernels_(kernels),
        pool_(pool),
        layout_(LayoutOf(model, recipe)),
        adapter_(model.config, recipe.name),
        pass_(*model.decoder, layout_, PairScale(recipe.lora), kernels, pool,
              {.activation = options.recompute ? ActivationPolicy::kRecompute
                                               : ActivationPolicy::kStash}) {}

  const TrainLayout& layout() const { return layout_; }
  Adapter& adapter() { return adapter_; }
  Checkpoint& state() { return state_; }

  void Refresh() {
    SetAdapter(layout_, state_.masters, recipe_.lora, &adapter_);
    pass_.SetValues(state_.masters);
  }

  // One optimizer step. Throws kInvalidArgument when the loss is no longer finite.
  void Step(const StepBatches& batches, StepReport* report) {
    gradients_.assign(static_cast<size_t>(layout_.size), 0.0f);
    const LossSums train = Accumulate(batches.train, batches.train_rows, 1.0, false);
    const bool kl = stage_.replay && stage_.replay->kl_weight > 0;
    const double weight = kl ? stage_.replay->kl_weight : ReplayWeight(batches);
    const LossSums replay = Accumulate(batches.replay, batches.replay_rows, weight, kl);
    const double norm = ops::GradientNorm(kernels_.train, pool_, gradients_);
    if (!std::isfinite(norm) || !std::isfinite(train.nll)) {
      Throw(ErrorCode::kInvalidArgument,
            "stage '{}', step {}: the loss is no longer a finite number; lower 'learning_rate' "
            "(now {:g}) or 'clip' (now {:g}) and run again", stage_.name, state_.step + 1,
            stage_.learning_rate, stage_.clip);
    }
    report->learning_rate = LearningRate(stage_, state_.step, report->num_steps);
    ops::AdamW(kernels_.train, pool_,
               {.learning_rate = report->learning_rate,
                .beta1 = stage_.beta1,
                .beta2 = stage_.beta2,
                .weight_decay = stage_.weight_decay,
                .gradient_scale = ops::ClipScale(norm, stage_.clip),
                .step = state_.step + 1},
               state_.masters, state_.first_moments, state_.second_moments, gradients_);
    Refresh();
    ++state_.step;
    state_.tokens += batches.tokens;
    report->step = state_.step;
    report->gradient_norm = norm;
    report->loss = train.nll / std::max(1.0, train.weight);
    report->accuracy = static_cast<double>(train.correct) /
                       static_cast<double>(std::max<int64_t>(1, train.rows));
    report->replay_loss = (kl ? replay.kl : replay.nll) / std::max(1.0, replay.weight);
    report->tokens = state_.tokens;
  }

 private:
  // Plain replay counts every token alike, trained or replayed.
  static double ReplayWeight(const StepBatches& batches) {
    return static_cast<double>(batches.replay_rows) /
           static_cast<double>(std::max<int64_t>(1, batches.train_rows));
  }

  LossSums Accumulate(const std::vector<PackedBatch>& batches, int64_t rows, double weight, bool kl) {
    LossSums sums;
    if (rows == 0) return sums;
    const auto scale = static_cast<float>(weight / static_cast<double>(rows));
    for (const PackedBatch& batch : batches) {
      sums += pass_.ForwardBackward(batch.View(), {.gradient_scale = scale, .kl_to_base = kl},
                                    gradients_);
    }
    return sums;
  }

  const Recipe& recipe_;
  const StageRecipe& stage_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  TrainLayout layout_;
  Adapter adapter_;
  TrainerPass pass_;
  Checkpoint state_;
  std::vector<float> gradients_;
};

[[noreturn]] void WrongKey(const std::filesystem::path& path) {
  Throw(ErrorCode::kInvalidArgument,
        "{}: belongs to another base, recipe or data; delete it to start afresh, or use another "
        "output folder", path.string());
}

void CheckState(const Checkpoint& state, const std::string& key, int64_t size,
                const std::filesystem::path& path) {
  if (state.key != key) WrongKey(path);
  if (static_cast<int64_t>(state.masters.size()) != size) WrongKey(path);
}

}  // namespace

double LearningRate(const StageRecipe& stage, int64_t step, int64_t num_steps) {
  const double warmup = std::max(1.0, std::ceil(stage.warmup * static_cast<double>(num_steps)));
  const double done = static_cast<double>(step) + 1;
  if (done <= warmup) return stage.learning_rate * done / warmup;
  const double rest = std::max(1.0, static_cast<double>(num_steps) - warmup);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * (done - warmup) / rest));
  return stage.learning_rate * (stage.final_rate + (1 - stage.final_rate) * cosine);
}

bool HasStageState(const std::filesystem::path& folder, const std::string& key) {
  for (const char* name : {"result.bin", "checkpoint.bin"}) {
    try {
      const auto state = ReadCheckpoint(folder / name);
      if (state) return state->key == key;
    } catch (const Error&) {
      return false;  // damaged: of no use
    }
  }
  return false;
}

std::vector<float> ReadStageResult(const std::filesystem::path& folder, const std::string& key,
                                   const TrainLayout& layout) {
  const auto path = folder / "result.bin";
  auto state = ReadCheckpoint(path);
  if (!state) Throw(ErrorCode::kNotFound, "{}: expected the result of a stage", path.string());
  CheckState(*state, key, layout.size, path);
  return std::move(state->masters);
}

StageOutcome TrainStage(const Model& model, const Recipe& recipe, const StageRecipe& stage,
                        const StageData& data, std::vector<float> initial_masters,
                        const std::string& key, const KernelTable& kernels, ThreadPool& pool,
                        const TrainOptions& options, TrainObserver& observer) {
  const auto checkpoint_path = options.folder / "checkpoint.bin";
  const auto result_path = options.folder / "result.bin";
  StageRun run(model, recipe, stage, kernels, pool, options);
  const TrainLayout& layout = run.layout();
  StageOutcome outcome;
  StepReport& report = outcome.last;
  report.num_steps = NumSteps(stage, data.train.epoch_size());

  if (auto done = ReadCheckpoint(result_path)) {
    CheckState(*done, key, layout.size, result_path);
    outcome.masters = std::move(done->masters);
    outcome.reused = true;
    report.step = done->step;
    report.tokens = done->tokens;
    report.seconds = done->seconds;
    return outcome;
  }
  Checkpoint& state = run.state();
  if (auto saved = ReadCheckpoint(checkpoint_path)) {
    CheckState(*saved, key, layout.size, checkpoint_path);
    state = std::move(*saved);
    outcome.resumed = true;
  } else {
    BAKESTONE_CHECK(static_cast<int64_t>(initial_masters.size()) == layout.size);
    state.key = key;
    state.masters = std::move(initial_masters);
    state.first_moments.assign(state.masters.size(), 0.0f);
    state.second_moments.assign(state.masters.size(), 0.0f);
  }
  run.Refresh();
  StepLog log(options.folder / "log.jsonl", state.log_bytes);
  StepSource source(data, stage, recipe.seed, options.batch_tokens);
  source.SkipTo(state.step);
  const auto save = [&] {
    state.log_bytes = log.Sync();
    WriteCheckpoint(checkpoint_path, state);
  };
  auto last_save = Clock::now();
  while (state.step < report.num_steps) {
    if (observer.Cancelled()) {
      save();
      Throw(ErrorCode::kCancelled, "stopped after step {} of {} of stage '{}'; run again to go on",
            state.step, report.num_steps, stage.name);
    }
    const auto start = Clock::now();
    run.Step(source.Next(), &report);
    state.seconds += Seconds(Clock::now() - start);
    report.seconds = state.seconds;
    log.Append(report);
    observer.OnStep(report);
    observer.Between(run.adapter());
    if (Seconds(Clock::now() - last_save) >= options.checkpoint_seconds) {
      save();
      last_save = Clock::now();
    }
  }
  log.Sync();
  state.first_moments.clear();
  state.second_moments.clear();
  WriteCheckpoint(result_path, state);
  std::filesystem::remove(checkpoint_path);
  outcome.masters = std::move(state.masters);
  return outcome;
}

}  // namespace bakestone
