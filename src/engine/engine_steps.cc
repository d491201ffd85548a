// What a step computes of the running ones, and how.
#include <algorithm>

#include "base/log.h"
#include "engine/engine_impl.h"

namespace bakestone {
namespace {

// A prompt's chunk is never cut smaller: below it the weights are read too often for too few rows.
// Beside answers they are read anyway.
constexpr int64_t kMinChunk = 16, kMinChunkBeside = 8;
// With nobody waiting for a next token a step may be this long: it only delays a cancellation.
constexpr double kIdleStepSeconds = 0.5;
// A step that reads prompts takes as many times what the answers in it take alone. Where the prompt
// has few tokens left it may take this long: that comes a few times, and somebody gets a first
// token.
constexpr double kStretch = 2, kBriefStepSeconds = 0.02;
constexpr int64_t kBriefTokens = 512;

}  // namespace

// Whoever is being answered gets a row first; prompts share what is left of the step's time.
std::vector<Work> Engine::Impl::Plan() const {
  std::vector<Work> works;
  StepSize answers;
  for (const auto& sequence : running) {
    if (sequence->prefilling()) continue;
    works.push_back({.sequence = sequence.get(), .count = sequence->pending()});
    answers.Add(sequence->state().length(), works.back().count, 1);
  }
  PlanPrompts(answers, works);
  return works;
}

// Of the tenant for which least was computed first, then of the adapter, then the oldest.
void Engine::Impl::PlanPrompts(const StepSize& answers, std::vector<Work>& works) const {
  std::vector<Sequence*> prompts;
  for (const auto& sequence : running) {
    if (sequence->prefilling()) prompts.push_back(sequence.get());
  }
  std::stable_sort(prompts.begin(), prompts.end(),
                   [&](const Sequence* a, const Sequence* b) { return waiting.Before(*a, *b); });
  const double alone = cost.Predict(answers);
  double seconds = kIdleStepSeconds;
  if (answers.rows > 0) {
    seconds = options.target_step_seconds > 0 ? options.target_step_seconds : kStretch * alone;
  }
  double brief =
      (options.target_step_seconds > 0 ? seconds : std::max(seconds, kBriefStepSeconds)) - alone;
  seconds -= alone;
  const int64_t smallest = answers.rows > 0 ? kMinChunkBeside : kMinChunk;
  int64_t rows = options.max_step_tokens - answers.rows,
          least = cost.Known() ? smallest : 2 * kMinChunk;
  if (options.fixed_chunk > 0) rows = std::min(rows, options.fixed_chunk);
  for (Sequence* sequence : prompts) {
    const int64_t position = sequence->state().length();
    const int64_t fit =
        options.fixed_chunk > 0
            ? rows
            : std::max(
                  cost.RowsWithin(sequence->pending() <= kBriefTokens ? brief : seconds, position),
                  least);
    const int64_t count = std::min({fit, rows, sequence->pending(), sequence->until_states()});
    if (count <= 0) break;
    works.push_back({.sequence = sequence, .count = count});
    StepSize chunk;
    chunk.Add(position, count, 0);
    const double taken = cost.Predict(chunk) - cost.Predict({});
    seconds -= taken;
    brief -= taken;
    rows -= count;
    least = std::max<int64_t>(least - count, 0);
  }
}

void Engine::Impl::RunStep() {
  std::vector<Work> works;
  {
    std::lock_guard lock(mutex);  // for the counters of those that wait
    works = Plan();
  }
  int64_t rows = 0;
  for (const Work& work : works) rows += work.count;
  speculator.Propose(works, options.max_step_tokens - rows);
  int64_t drafts = 0;
  StepSize size;
  for (const Work& work : works) {
    const auto ahead = static_cast<int64_t>(work.draft.size());
    size.Add(work.sequence->state().length(), work.count + ahead,
             ahead + (work.count == work.sequence->pending()));
    drafts += ahead;
  }
  const auto start = Clock::now();
  bool together = true;
  try {
    runner.Run(works, pool);
  } catch (const std::exception& error) {
    LogWarning("a step of {} requests failed ({}); each is tried alone", works.size(),
               error.what());
    together = false;
    RunAlone(works);
  }
  const auto end = Clock::now();
  const double seconds = std::chrono::duration<double>(end - start).count();
  if (together) speculator.Learn(works, seconds);
  if (together && (options.probe || (rows >= kMinChunk && drafts == 0))) cost.Learn(size, seconds);
  for (Work& work : works) {
    if (work.error) End(*work.sequence, FinishReason::kError, work.error);
  }
  std::lock_guard lock(mutex);
  for (const Work& work : works) {  // what is read again after a pause is the engine's doing
    waiting.Computed(*work.sequence, work.read_prompt && !work.sequence->resumed() ? work.count : 0,
                     work.drawn);
  }
  ++metrics.steps;
  metrics.busy_seconds += seconds;
  last_progress = end;
}

// A step's failure belongs to whoever fails without the others too: nothing that they compute
// depends on the company, so the rest simply go on.
void Engine::Impl::RunAlone(std::vector<Work>& works) {
  for (Work& work : works) {
    try {
      work.draft.clear();  // its tokens may be what fails
      runner.Run(std::span(&work, 1), pool);
    } catch (const Error& error) {
      work.error = error;
    } catch (const std::exception& error) {
      work.error = Error(ErrorCode::kInternal, error.what());
    }
  }
}

}  // namespace bakestone
