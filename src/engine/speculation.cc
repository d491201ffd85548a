#include "engine/speculation.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "engine/draft_model.h"
#include "engine/sequence.h"
#include "engine/step_runner.h"

namespace bakestone {

Speculator::Speculator(const SpeculationOptions& options, const Model& target,
                       const KernelTable& kernels, ThreadPool& threads, KvType kv_type,
                       int64_t kv_pages)
    : options_(options) {
  if (options.max_tokens < 1 || options.max_tokens >= StepCosts::kMaxRows) {
    Throw(ErrorCode::kInvalidArgument, "speculation: expected 1 to {} tokens at a time, found {}",
          StepCosts::kMaxRows - 1, options.max_tokens);
  }
  if (options.draft) {
    model_ =
        std::make_unique<DraftModel>(options.draft, target, kernels, threads, kv_type, kv_pages);
  }
}

Speculator::~Speculator() = default;

// Only a sequence whose next token this step draws: its prompt is computed, and one token is
// pending.
bool Speculator::Eligible(const Work& work) const {
  const Sequence& sequence = *work.sequence;
  return sequence.request().speculate && !sequence.prefilling() &&
         work.count == sequence.pending() && sequence.remaining() > 1;
}

void Speculator::Propose(std::span<Work> works, int64_t max_rows) {
  draft_seconds_ = 0;
  if (options_.mode == Speculation::kOff) return;
  std::vector<Work*> eligible;
  int64_t rows = 0;
  bool reading = false;  // a prompt is among them: the step is bound by arithmetic, no row is cheap
  for (Work& work : works) {
    rows += work.count;
    reading |= work.sequence->prefilling();
    if (Eligible(work)) eligible.push_back(&work);
  }
  if (eligible.empty() || (reading && options_.mode != Speculation::kAlways)) return;
  if (options_.lookup) ProposeFromText(eligible, rows, max_rows);
  for (const Work* work : eligible) max_rows -= static_cast<int64_t>(work->draft.size());
  if (!model_) return;
  for (const Work* work : eligible) rows += static_cast<int64_t>(work->draft.size());
  std::erase_if(eligible, [](const Work* work) { return !work->draft.empty(); });
  ProposeFromModel(eligible, rows, max_rows);
}

void Speculator::ProposeFromText(std::span<Work*> works, int64_t base_rows, int64_t max_extra) {
  std::vector<DraftPolicy::Candidate> candidates;
  for (Work* work : works) {
    Sequence& sequence = *work->sequence;
    SequenceDrafts& drafts = sequence.drafts();
    PromptLookup& lookup = drafts.lookup;
    const std::span<const int32_t> tokens = sequence.tokens();
    if (!drafts.answering) {
      lookup.Append(tokens.first(static_cast<size_t>(sequence.prompt_size())));
      lookup.BeginAnswer();
      drafts.answering = true;
    }
    lookup.Append(tokens.subspan(static_cast<size_t>(lookup.size())));
    PromptLookup::Guess guess =
        lookup.Propose(std::min(options_.max_tokens, sequence.remaining() - 1));
    work->draft = std::move(guess.tokens);
    work->draft_kind =
        guess.match < PromptLookup::kMinMatch ? DraftKind::kExpected : KindOfMatch(guess.match);
    const double chance = drafts.acceptance.Chance(work->draft_kind, &acceptance_);
    candidates.push_back({.chance = chance, .available = static_cast<int64_t>(work->draft.size())});
  }
  if (options_.mode == Speculation::kAlways) {
    for (auto& candidate : candidates) {
      candidate.keep = std::min(candidate.available, max_extra);
      max_extra -= candidate.keep;
    }
  } else {
    policy_.Choose(candidates, base_rows, max_extra);
  }
  for (size_t i = 0; i < works.size(); ++i) {
    works[i]->draft.resize(static_cast<size_t>(candidates[i].keep));
  }
}

void Speculator::ProposeFromModel(std::span<Work*> works, int64_t base_rows, int64_t max_extra) {
  std::vector<Work*> asked;
  std::vector<DraftPolicy::Candidate> candidates;
  for (Work* work : works) {
    Sequence& sequence = *work->sequence;
    if (sequence.drafts().failed) continue;
    const int64_t room =
        std::min({options_.max_tokens, sequence.remaining() - 1, model_->Room(sequence)});
    if (room < 1) continue;
    const double chance = sequence.drafts().acceptance.Chance(DraftKind::kModel, &acceptance_);
    asked.push_back(work);
    candidates.push_back({.chance = chance, .available = room, .keep = room});
  }
  if (options_.mode != Speculation::kAlways) {
    policy_.Choose(candidates, base_rows, max_extra, model_->seconds_per_token());
  }
  std::vector<DraftModel::Request> requests;
  std::vector<Work*> works_of_requests;
  for (size_t i = 0; i < asked.size(); ++i) {
    const int64_t wanted = std::min(candidates[i].keep, max_extra);
    max_extra -= wanted;
    if (wanted < 1) continue;
    requests.push_back({.sequence = asked[i]->sequence, .wanted = wanted});
    works_of_requests.push_back(asked[i]);
  }
  if (requests.empty()) return;
  try {
    model_->Propose(requests);
  } catch (const std::exception& error) {
    LogWarning("the draft model failed ({}); {} answers go on without it", error.what(),
               requests.size());
    for (const DraftModel::Request& request : requests) request.sequence->drafts().failed = true;
    return;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto passes = static_cast<double>(requests[i].tokens.size());
    draft_seconds_ = std::max(draft_seconds_, passes * model_->seconds_per_token());
    works_of_requests[i]->draft = std::move(requests[i].tokens);
    works_of_requests[i]->draft_kind = DraftKind::kModel;
  }
}

void Speculator::Learn(std::span<const Work> works, double seconds) {
  if (options_.mode != Speculation::kAuto) return;
  int64_t rows = 0, produced = 0;
  bool reading = false;
  for (const Work& work : works) {
    rows += work.count + static_cast<int64_t>(work.draft.size());
    reading |= work.read_prompt;
    produced += work.accepted + 1;
    if (work.draft.empty() || work.error) continue;
    const auto proposed = static_cast<int64_t>(work.draft.size());
    acceptance_.Learn(work.draft_kind, work.accepted, proposed);
    work.sequence->drafts().acceptance.Learn(work.draft_kind, work.accepted, proposed);
  }
  if (reading) {
    policy_.LearnPrompt(rows, seconds);
  } else {
    policy_.LearnStep(static_cast<int64_t>(works.size()), rows, produced, seconds, draft_seconds_);
  }
}

}  // namespace bakestone
