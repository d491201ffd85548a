// Shows a stage's training to the bake's observer and asks the held-out question now and then. The
// thread that trains.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "eval/questions.h"
#include "model/exec.h"
#include "pipeline/bake.h"
#include "train/trainer.h"

namespace bakestone {

class StageObserver : public TrainObserver {
 public:
  // Keeps references. questions may be null. probe_seconds: between questions; 0: none are asked.
  // keep: writes values that are to be kept.
  StageObserver(BakeObserver& observer, const Model& model, Exec& exec,
                const QuestionSet* questions, const EvalRecipe& eval, std::string label,
                double probe_seconds, std::function<void(const KeptValues&)> keep);
  // Operations a second that this machine's products could do: its share is shown from now on.
  void SetLimit(double flops) { limit_ = flops; }

  void OnStart(const StepReport& report) override { TakeTexts(report); }
  void OnStep(const StepReport& report) override;
  void OnKeep(const KeptValues& values) override { keep_(values); }
  void OnTrouble(const std::string& what) override { observer_.OnWarning(what); }
  void Between(Adapter& adapter) override;
  bool Cancelled() override { return observer_.Cancelled(); }

 private:
  void TakeTexts(const StepReport& report);
  void TakeScores(const StepReport& report);

  BakeObserver& observer_;
  const Model& model_;
  Exec& exec_;
  const QuestionSet* questions_;
  const EvalRecipe& eval_;
  const std::string label_;
  const double probe_seconds_;
  const std::function<void(const KeptValues&)> keep_;
  std::chrono::steady_clock::time_point last_probe_;
  const Question* probe_ = nullptr;
  StepReport last_;
  double limit_ = 0;                    // 0: unknown
  double flop_ = 0, flop_seconds_ = 0;  // of the last steps, the older ones less and less
  std::string scores_;  // of the last look at the held-out side and the answers, for people
  std::string texts_;   // what the watched texts cost, likewise
};

}  // namespace bakestone
