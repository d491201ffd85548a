#include "train/heldout_watch.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace bakestone {

HeldoutWatch::HeldoutWatch(const StageRecipe& stage, const StageData& data,
                           const References& references, std::filesystem::path best_path,
                           int64_t num_steps)
    : stage_(stage),
      data_(data),
      references_(references),
      best_path_(std::move(best_path)),
      every_(stage.eval_steps > 0 ? stage.eval_steps : std::max<int64_t>(1, num_steps / 10)),
      num_steps_(num_steps) {}

bool HeldoutWatch::Look(StageRun* run, StepReport* report) const {
  Checkpoint& state = run->state();
  if ((data_.heldout.size() == 0 && data_.answers.size() == 0) || !Due(state.step)) return false;
  if (data_.heldout.size() > 0) {
    const HeldoutScore score = run->Score(data_.heldout, references_);
    report->heldout_loss = score.loss;
    report->heldout_accuracy = score.accuracy;
  }
  if (data_.answers.size() > 0) report->answers = run->ScoreAnswers(data_.answers);
  if (IsBetter(state, *report)) {
    state.best_step = state.step;
    state.best_loss = report->answers ? report->answers->loss : *report->heldout_loss;
    state.best_answers = report->answers ? report->answers->right : 0;
    state.worse = 0;
    if (stage_.keep == KeepPolicy::kBest) WriteBest(state);
  } else {
    ++state.worse;
  }
  return stage_.patience > 0 && state.worse >= stage_.patience;
}

// Answers decide where there are some; of as many right ones, the likelier ones.
bool HeldoutWatch::IsBetter(const Checkpoint& state, const StepReport& report) const {
  if (state.best_step < 0) return true;
  if (!report.answers) return *report.heldout_loss < state.best_loss;
  if (report.answers->right != state.best_answers) {
    return report.answers->right > state.best_answers;
  }
  return report.answers->loss < state.best_loss;
}

void HeldoutWatch::TakeBest(Checkpoint* state) const {
  if (stage_.keep != KeepPolicy::kBest || state->best_step < 0 || state->best_step == state->step) {
    return;
  }
  auto best = ReadCheckpoint(best_path_);
  if (!best || best->key != state->key || best->step != state->best_step) {
    Throw(ErrorCode::kCorrupt,
          "{}: expected the values of step {}; delete the stage's folder to train it again",
          best_path_.string(), state->best_step);
  }
  state->masters = std::move(best->masters);
}

void HeldoutWatch::WriteBest(const Checkpoint& state) const {
  Checkpoint best;
  best.key = state.key;
  best.step = state.step;
  best.masters = state.masters;
  WriteCheckpoint(best_path_, best);
}

}  // namespace bakestone
