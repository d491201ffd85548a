#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "train/heldout_watch.h"
#include "train/references.h"
#include "train/stage_run.h"
#include "train/step_log.h"
#include "train/trend_watch.h"

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

[[noreturn]] void WrongKey(const std::filesystem::path& path) {
  Throw(ErrorCode::kInvalidArgument,
        "{}: belongs to another base, recipe or data; delete it to start afresh, or use another "
        "output folder",
        path.string());
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
  double left = 1;  // of the way from the peak to the end
  switch (stage.schedule) {
    case Schedule::kCosine:
      left = 0.5 * (1 + std::cos(std::numbers::pi * (done - warmup) / rest));
      break;
    case Schedule::kLinear:
      left = 1 - (done - warmup) / rest;
      break;
    case Schedule::kWsd: {
      const double decay = std::max(1.0, std::ceil(stage.decay * static_cast<double>(num_steps)));
      left = std::min(1.0, (static_cast<double>(num_steps) - done) / decay);
      break;
    }
    case Schedule::kConstant:
      break;
  }
  return stage.learning_rate * (stage.final_rate + (1 - stage.final_rate) * left);
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

AlignedVector<float> ReadStageResult(const std::filesystem::path& folder, const std::string& key,
                                     const TrainLayout& layout) {
  const auto path = folder / "result.bin";
  auto state = ReadCheckpoint(path);
  if (!state) Throw(ErrorCode::kNotFound, "{}: expected the result of a stage", path.string());
  CheckState(*state, key, layout.size, path);
  return std::move(state->masters);
}

namespace {

// What preferences are measured against: the model that the stage starts from.
StageReferences ReferencesOf(const StageRecipe& stage, const StageData& data,
                             const std::string& key, std::span<const float> initial,
                             const std::filesystem::path& path, StageRun* run) {
  if (stage.method != TrainMethod::kDpo) return {};
  if (auto known = ReadReferences(path, key);
      known && static_cast<int64_t>(known->train.chosen.size()) == data.train.size() &&
      static_cast<int64_t>(known->heldout.chosen.size()) == data.heldout.size()) {
    return std::move(*known);
  }
  StageReferences references = {run->Reference(data.train, initial),
                                run->Reference(data.heldout, initial)};
  WriteReferences(path, key, references);
  return references;
}

}  // namespace

StageOutcome TrainStage(const Model& model, const Recipe& recipe, const StageRecipe& stage,
                        const StageData& data, AlignedVector<float> initial_masters,
                        const std::string& key, const KernelTable& kernels, ThreadPool& pool,
                        const TrainOptions& options, TrainObserver& observer) {
  const auto checkpoint_path = options.folder / "checkpoint.bin",
             best_path = options.folder / "best.bin";
  const auto result_path = options.folder / "result.bin",
             reference_path = options.folder / "references.bin";
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
  auto saved = ReadCheckpoint(checkpoint_path);
  if (saved) CheckState(*saved, key, layout.size, checkpoint_path);
  BAKESTONE_CHECK(static_cast<int64_t>(initial_masters.size()) == layout.size);
  const StageReferences references =
      ReferencesOf(stage, data, key, initial_masters, reference_path, &run);
  Checkpoint& state = run.state();
  if (saved) {
    state = std::move(*saved);
    outcome.resumed = true;
  } else {
    state.key = key;
    state.masters = std::move(initial_masters);
    state.first_moments.assign(state.masters.size(), 0.0f);
    state.second_moments.assign(state.masters.size(), 0.0f);
  }
  run.Refresh();
  StepLog log(options.folder, state.log_bytes, state.seconds);
  StepSource source(data, stage, references.train, recipe.seed, options.batch_tokens);
  source.SkipTo(state.step);
  HeldoutWatch heldout(stage, data, references.heldout, best_path, report.num_steps);
  TrendWatch trend;
  TextWatch watch(recipe.watch, data.watched, report.num_steps, options.batch_tokens, &run);
  ForgettingWatch forgetting;
  if (!saved && !data.watched.empty()) {
    report.texts = watch.Measure();
    log.AppendStart(report);
    observer.OnStart(report);
  }
  CheckpointWriter checkpoints(checkpoint_path);
  const auto save = [&] {
    state.log_bytes = log.Sync();
    checkpoints.Write(state);
  };
  auto last_save = Clock::now();
  while (state.step < report.num_steps && !state.stopped) {
    if (observer.Cancelled()) {
      save();
      checkpoints.Wait();
      Throw(ErrorCode::kCancelled, "stopped after step {} of {} of stage '{}'; run again to go on",
            state.step, report.num_steps, stage.name);
    }
    const auto start = Clock::now();
    report.heldout_loss.reset();
    report.heldout_accuracy.reset();
    report.answers.reset();
    try {
      run.Step(source.Next(), LearningRate(stage, state.step, report.num_steps), &report);
    } catch (const Error&) {
      // The values are such that their loss is no number: those of a checkpoint before are good.
      checkpoints.Wait();
      if (const auto good = ReadCheckpoint(checkpoint_path); good && good->step < state.step) {
        observer.OnKeep({good->step, good->best_step, good->masters});
      }
      throw;
    }
    report.step_seconds = Seconds(Clock::now() - start);
    state.stopped = heldout.Look(&run, &report);
    state.seconds += Seconds(Clock::now() - start);
    report.seconds = state.seconds;
    report.texts =
        watch.AfterStep(state.step, state.seconds, state.stopped || state.step == report.num_steps);
    log.Append(report);
    observer.OnStep(report);
    for (const std::string& words : forgetting.Look(state.step, report.texts)) {
      observer.OnTrouble(words);
    }
    if (const std::string words = trend.Look(report); !words.empty()) observer.OnTrouble(words);
    if (stage.keep_last > 0 && heldout.Due(state.step)) {
      observer.OnKeep({state.step, state.best_step, state.masters});
    }
    observer.Between(run.adapter());
    if (Seconds(Clock::now() - last_save) >= options.checkpoint_seconds ||
        (options.checkpoint_steps > 0 && state.step % options.checkpoint_steps == 0)) {
      save();
      last_save = Clock::now();
    }
  }
  log.Sync();
  checkpoints.Wait();
  outcome.best_step = state.best_step;
  outcome.best_loss = state.best_loss;
  outcome.best_answers = state.best_answers;
  outcome.stopped_early = state.stopped && state.step < report.num_steps;
  heldout.TakeBest(&state);
  state.first_moments.clear();
  state.second_moments.clear();
  WriteCheckpoint(result_path, state);
  std::error_code code;
  std::filesystem::remove(checkpoint_path);
  std::filesystem::remove(best_path, code);
  outcome.masters = std::move(state.masters);
  outcome.peak_bytes = run.peak_bytes();
  return outcome;
}

}  // namespace bakestone
