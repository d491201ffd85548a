#include "train/find_rate.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/stage_run.h"

namespace bakestone {
namespace {

constexpr int64_t kTries = 80;
constexpr double kLeast = 1e-6, kMost = 0.1;
constexpr double kKeep = 0.8;      // of the smoothed loss from one step to the next
constexpr double kRunsAway = 1.5;  // times the lowest smoothed loss

// The loss of one step each with the rates in turn, as far as it stays finite and near.
std::vector<double> Try(StageRun* run, StepSource* source, const std::vector<double>& rates,
                        TrainObserver& observer) {
  std::vector<double> losses;
  StepReport report;
  report.num_steps = static_cast<int64_t>(rates.size());
  double lowest = 0;
  for (const double rate : rates) {
    if (observer.Cancelled()) {
      Throw(ErrorCode::kCancelled, "stopped while looking for a learning rate");
    }
    try {
      run->Step(source->Next(), rate, &report);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidArgument) throw;
      break;  // no longer a finite number: the end of the road
    }
    losses.push_back(report.loss);
    observer.OnStep(report);
    lowest = losses.size() == 1 ? report.loss : std::min(lowest, report.loss);
    if (report.loss > 2 * kRunsAway * lowest) break;
  }
  return losses;
}

}  // namespace

RateFinding JudgeRates(const std::vector<double>& rates, const std::vector<double>& losses) {
  RateFinding finding;
  double sum = 0, weight = 0, lowest = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    sum = kKeep * sum + (1 - kKeep) * losses[i];
    weight = kKeep * weight + (1 - kKeep);
    const double smooth = sum / weight;
    if (i > 0 && smooth > kRunsAway * lowest) break;
    lowest = i == 0 ? smooth : std::min(lowest, smooth);
    finding.rates.push_back(rates[i]);
    finding.losses.push_back(smooth);
  }
  constexpr size_t kSpan = 5;  // steps over which a fall is measured
  double most = 0;
  for (size_t i = kSpan; i < finding.losses.size(); ++i) {
    const double fall = finding.losses[i - kSpan] - finding.losses[i];
    if (fall <= most) continue;
    most = fall;
    finding.fastest = finding.rates[i - kSpan / 2];
  }
  if (most <= 0) {
    Throw(ErrorCode::kInvalidArgument,
          "no learning rate from {:g} to {:g} lowered the loss: is there something to learn, and "
          "is it trained (targets)?",
          rates.front(), rates.back());
  }
  const auto least = std::min_element(finding.losses.begin(), finding.losses.end());
  finding.lowest = finding.rates[static_cast<size_t>(least - finding.losses.begin())];
  finding.suggested = std::sqrt(finding.fastest * finding.lowest / 10);
  return finding;
}

RateFinding FindRate(const Model& model, const Recipe& recipe, const StageRecipe& stage,
                     const StageData& data, AlignedVector<float> initial,
                     const KernelTable& kernels, ThreadPool& pool, const TrainOptions& options,
                     TrainObserver& observer) {
  StageRun run(model, recipe, stage, kernels, pool, options);
  References references;
  if (stage.method == TrainMethod::kDpo) references = run.Reference(data.train, initial);
  Checkpoint& state = run.state();
  state.masters = std::move(initial);
  state.first_moments.assign(state.masters.size(), 0.0f);
  state.second_moments.assign(state.masters.size(), 0.0f);
  run.Refresh();
  std::vector<double> rates;
  for (int64_t i = 0; i < kTries; ++i) {
    rates.push_back(kLeast * std::pow(kMost / kLeast, static_cast<double>(i) / (kTries - 1)));
  }
  StepSource source(data, stage, references, recipe.seed, options.batch_tokens);
  return JudgeRates(rates, Try(&run, &source, rates, observer));
}

}  // namespace bakestone
