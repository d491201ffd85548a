#include "engine/fair_queue.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr double kPromptWeight = 1, kAnswerWeight = 2;
// Of one line, so that a long queue is not searched through in every step.
constexpr size_t kLookAhead = 64;

}  // namespace

void FairQueue::Add(std::unique_ptr<Sequence> sequence) {
  const GenerationRequest& request = sequence->request();
  FairLine& line = shares_.Enter(request.tenant, request.background,
                                 request.adapter ? request.adapter->hash() : Hash{});
  sequence->set_line(&line);
  line.payload.push_back({std::move(sequence), 0});
  ++size_;
}

void FairQueue::Return(std::unique_ptr<Sequence> sequence) {
  FairLine& line = *sequence->line();
  --line.tenant->running;
  line.payload.push_front({std::move(sequence), 0});
  ++size_;
}

std::vector<FairLine*> FairQueue::Lines() const {
  std::vector<FairLine*> lines;
  shares_.ForEachLine([&](FairLine& line) {
    if (!line.payload.empty()) lines.push_back(&line);
  });
  const auto turn = [](const FairLine* line) {
    return std::pair(Shares::Turn(*line), line->payload.front().sequence->id());
  };
  std::sort(lines.begin(), lines.end(),
            [&](const FairLine* a, const FairLine* b) { return turn(a) < turn(b); });
  return lines;
}

std::unique_ptr<Sequence> FairQueue::Pop(FairLine& line, size_t index) {
  const auto at = line.payload.begin() + static_cast<std::ptrdiff_t>(index);
  std::unique_ptr<Sequence> sequence = std::move(at->sequence);
  line.payload.erase(at);
  ++line.tenant->running;
  --size_;
  return sequence;
}

std::unique_ptr<Sequence> FairQueue::Take(std::span<const std::unique_ptr<Sequence>> running,
                                          const std::function<Verdict(const Sequence&)>& verdict) {
  if (size_ == 0) return nullptr;
  const auto owe = [&](double factor) {
    for (const auto& sequence : running) {
      Shares::Owe(*sequence->line(), factor * static_cast<double>(sequence->unread()));
    }
  };
  owe(1);
  const std::vector<FairLine*> lines = Lines();
  owe(-1);
  std::vector<WaitingSequence*> passed;
  for (FairLine* line : lines) {
    for (size_t i = 0; i < std::min(line->payload.size(), kLookAhead); ++i) {
      WaitingSequence& waiting = line->payload[i];
      const Verdict now = verdict(*waiting.sequence);
      if (now == Verdict::kLater) continue;
      if (now == Verdict::kTooLarge) {
        if (waiting.passed >= kMostPasses) return nullptr;
        passed.push_back(&waiting);
        continue;
      }
      for (WaitingSequence* one : passed) ++one->passed;
      return Pop(*line, i);
    }
  }
  return nullptr;
}

const Sequence* FairQueue::First() const {
  if (size_ == 0) return nullptr;
  return Lines().front()->payload.front().sequence.get();
}

const Sequence* FairQueue::FirstOfIdleTenant() const {
  for (const FairLine* line : Lines()) {
    if (line->tenant->running == 0) return line->payload.front().sequence.get();
  }
  return nullptr;
}

std::unique_ptr<Sequence> FairQueue::Take(const Sequence& sequence) {
  FairLine& line = *sequence.line();
  for (size_t i = 0; i < line.payload.size(); ++i) {
    if (line.payload[i].sequence.get() == &sequence) return Pop(line, i);
  }
  BAKESTONE_CHECK(false);
  return nullptr;
}

std::vector<std::unique_ptr<Sequence>> FairQueue::Remove(
    const std::function<bool(const Sequence&)>& leaves) {
  std::vector<std::unique_ptr<Sequence>> removed;
  shares_.ForEachLine([&](FairLine& line) {
    for (WaitingSequence& waiting : line.payload) {
      if (leaves(*waiting.sequence)) removed.push_back(std::move(waiting.sequence));
    }
    std::erase_if(line.payload,
                  [](const WaitingSequence& waiting) { return waiting.sequence == nullptr; });
  });
  size_ -= static_cast<int64_t>(removed.size());
  for (const auto& sequence : removed) shares_.Leave(*sequence->line());
  return removed;
}

void FairQueue::Left(const Sequence& sequence) {
  --sequence.line()->tenant->running;
  shares_.Leave(*sequence.line());
}

void FairQueue::Computed(const Sequence& sequence, int64_t prompt_tokens, int64_t answer_tokens) {
  Shares::Count(*sequence.line(), kPromptWeight * static_cast<double>(prompt_tokens) +
                                      kAnswerWeight * static_cast<double>(answer_tokens));
}

bool FairQueue::Before(const Sequence& a, const Sequence& b) const {
  return Shares::Turn(*a.line()) < Shares::Turn(*b.line());
}

int64_t FairQueue::RunningOf(const Sequence& sequence) const {
  return sequence.line()->tenant->running;
}

}  // namespace bakestone
