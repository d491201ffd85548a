#include "load/report.h"

#include <algorithm>
#include <cmath>

namespace bakestone::load {
namespace {

constexpr size_t kMostErrors = 20;  // of different words

struct Times {
  std::vector<double> first, between, whole;
  int64_t good = 0;
};

void Add(const Outcome& outcome, const Goals& goals, LoadSummary& summary, Times& times) {
  ++summary.requests;
  if (!outcome.error.empty()) {
    const bool refused = outcome.status == 429 || outcome.status == 503;
    ++(refused ? summary.refused : summary.failed);
    if (summary.errors.size() < kMostErrors || summary.errors.contains(outcome.error)) {
      ++summary.errors[outcome.error];
    }
    return;
  }
  ++summary.complete;
  const StreamResult& stream = outcome.stream;
  const std::vector<double>& at = stream.text_times;
  const int64_t tokens =
      stream.completion_tokens >= 0 ? stream.completion_tokens : static_cast<int64_t>(at.size());
  summary.prompt_tokens += std::max<int64_t>(stream.prompt_tokens, 0);
  summary.cached_tokens += stream.cached_tokens;
  summary.completion_tokens += tokens;
  times.whole.push_back(outcome.ended - outcome.due);
  if (at.empty()) return;  // an answer without a word
  const double first = at.front() - outcome.due;
  times.first.push_back(first);
  for (size_t i = 1; i < at.size(); ++i) times.between.push_back(at[i] - at[i - 1]);
  const double mean = tokens > 1 ? (at.back() - at.front()) / static_cast<double>(tokens - 1) : 0;
  times.good += first <= goals.first_token && mean <= goals.inter_token;
}

void Finish(Times times, double seconds, LoadSummary& summary) {
  summary.first_token = PercentilesOf(std::move(times.first));
  summary.inter_token = PercentilesOf(std::move(times.between));
  summary.whole = PercentilesOf(std::move(times.whole));
  if (seconds <= 0) return;
  summary.good_per_second = static_cast<double>(times.good) / seconds;
  summary.complete_per_second = static_cast<double>(summary.complete) / seconds;
  summary.tokens_per_second = static_cast<double>(summary.completion_tokens) / seconds;
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
    return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
  };
  return {static_cast<int64_t>(values.size()), at(0.5), at(0.95), at(0.99), values.back()};
}

LoadReport Summarize(const std::vector<PlannedRequest>& plan, const LoadRun& run,
                     const Goals& goals) {
  LoadReport report;
  report.seconds = run.seconds;
  report.cpu_share = run.seconds > 0 ? run.cpu_seconds / run.seconds : 0;
  Times all;
  std::map<std::string, Times> by_model;
  for (size_t i = 0; i < run.outcomes.size(); ++i) {
    const Outcome& outcome = run.outcomes[i];
    report.most_late = std::max(report.most_late, outcome.sent - outcome.due);
    Add(outcome, goals, report.all, all);
    Add(outcome, goals, report.models[plan[i].model], by_model[plan[i].model]);
  }
  Finish(std::move(all), run.seconds, report.all);
  for (auto& [model, summary] : report.models) {
    Finish(std::move(by_model[model]), run.seconds, summary);
  }
  if (report.models.size() < 2) report.models.clear();
  return report;
}

}  // namespace bakestone::load
