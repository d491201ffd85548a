#include "engine/fair_queue.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr double kPromptWeight = 1, kAnswerWeight = 2;
// Of one line, so that a long queue is not searched through in every step.
constexpr size_t kLookAhead = 64;
// Counters of those that are not active are kept up to so many; then they are forgotten.
constexpr size_t kMostKept = 4096;

// Where one that becomes active begins.
template <class Map>
void CatchUp(const Map& all, double* served) {
  bool any = false;
  double least = 0;
  for (const auto& [name, other] : all) {
    if (other->active == 0) continue;
    least = any ? std::min(least, other->served) : other->served;
    any = true;
  }
  if (any) *served = std::max(*served, least);
}

template <class Map>
void Forget(Map& all, const typename Map::mapped_type::element_type& one) {
  if (all.size() > kMostKept) {
    std::erase_if(all, [&](const auto& entry) { return entry.second.get() == &one; });
  }
}

}  // namespace

// The requests of one tenant for one adapter.
struct FairLine {
  FairQueue::Tenant* tenant = nullptr;
  double served = 0;
  double owed = 0;  // prompt tokens that were admitted and not yet computed; while Take looks
  int64_t active = 0;
  std::deque<FairQueue::Waiting> waiting;
};

struct FairQueue::Tenant {
  Class* of = nullptr;
  bool background = false;
  double served = 0, owed = 0;
  int64_t active = 0, running = 0;
  std::map<Hash, std::unique_ptr<FairLine>> lines;
};

FairQueue::FairQueue() = default;
FairQueue::~FairQueue() = default;

FairLine& FairQueue::Enter(const Sequence& sequence) {
  Class& all = classes_[sequence.request().background ? 1 : 0];
  auto& tenant = all.tenants[sequence.request().tenant];
  if (!tenant) {
    tenant =
        std::make_unique<Tenant>(Tenant{.of = &all, .background = sequence.request().background});
  }
  if (tenant->active == 0) {
    CatchUp(all.tenants, &tenant->served);
    ++all.active;
  }
  auto& line =
      tenant->lines[sequence.request().adapter ? sequence.request().adapter->hash() : Hash{}];
  if (!line) {
    line = std::make_unique<FairLine>();
    line->tenant = tenant.get();
  }
  if (line->active == 0) CatchUp(tenant->lines, &line->served);
  ++tenant->active;
  ++line->active;
  return *line;
}

void FairQueue::Leave(FairLine& line) {
  Tenant& tenant = *line.tenant;
  if (--line.active == 0) Forget(tenant.lines, line);
  if (--tenant.active > 0) return;
  Class& all = *tenant.of;
  if (--all.active == 0) {
    all.tenants.clear();  // nobody is compared with anybody
  } else {
    Forget(all.tenants, tenant);
  }
}

void FairQueue::Add(std::unique_ptr<Sequence> sequence) {
  FairLine& line = Enter(*sequence);
  sequence->set_line(&line);
  line.waiting.push_back({std::move(sequence), 0});
  ++size_;
}

void FairQueue::Return(std::unique_ptr<Sequence> sequence) {
  FairLine& line = *sequence->line();
  --line.tenant->running;
  line.waiting.push_front({std::move(sequence), 0});
  ++size_;
}

std::vector<FairLine*> FairQueue::Lines() const {
  std::vector<FairLine*> lines;
  for (const Class& all : classes_) {
    for (const auto& [name, tenant] : all.tenants) {
      for (const auto& [hash, line] : tenant->lines) {
        if (!line->waiting.empty()) lines.push_back(line.get());
      }
    }
  }
  const auto turn = [](const FairLine* line) {
    return std::tuple(line->tenant->background, line->tenant->served + line->tenant->owed,
                      line->served + line->owed, line->waiting.front().sequence->id());
  };
  std::sort(lines.begin(), lines.end(),
            [&](const FairLine* a, const FairLine* b) { return turn(a) < turn(b); });
  return lines;
}

std::unique_ptr<Sequence> FairQueue::Pop(FairLine& line, size_t index) {
  const auto at = line.waiting.begin() + static_cast<std::ptrdiff_t>(index);
  std::unique_ptr<Sequence> sequence = std::move(at->sequence);
  line.waiting.erase(at);
  ++line.tenant->running;
  --size_;
  return sequence;
}

std::unique_ptr<Sequence> FairQueue::Take(std::span<const std::unique_ptr<Sequence>> running,
                                          const std::function<Verdict(const Sequence&)>& verdict) {
  if (size_ == 0) return nullptr;
  const auto owe = [&](double factor) {
    for (const auto& sequence : running) {
      const double tokens = factor * static_cast<double>(sequence->unread());
      sequence->line()->owed += tokens;
      sequence->line()->tenant->owed += tokens;
    }
  };
  owe(1);
  const std::vector<FairLine*> lines = Lines();
  owe(-1);
  std::vector<Waiting*> passed;
  for (FairLine* line : lines) {
    for (size_t i = 0; i < std::min(line->waiting.size(), kLookAhead); ++i) {
      Waiting& waiting = line->waiting[i];
      const Verdict now = verdict(*waiting.sequence);
      if (now == Verdict::kLater) continue;
      if (now == Verdict::kTooLarge) {
        if (waiting.passed >= kMostPasses) return nullptr;
        passed.push_back(&waiting);
        continue;
      }
      for (Waiting* one : passed) ++one->passed;
      return Pop(*line, i);
    }
  }
  return nullptr;
}

const Sequence* FairQueue::First() const {
  if (size_ == 0) return nullptr;
  return Lines().front()->waiting.front().sequence.get();
}

const Sequence* FairQueue::FirstOfIdleTenant() const {
  for (const FairLine* line : Lines()) {
    if (line->tenant->running == 0) return line->waiting.front().sequence.get();
  }
  return nullptr;
}

std::unique_ptr<Sequence> FairQueue::Take(const Sequence& sequence) {
  FairLine& line = *sequence.line();
  for (size_t i = 0; i < line.waiting.size(); ++i) {
    if (line.waiting[i].sequence.get() == &sequence) return Pop(line, i);
  }
  BAKESTONE_CHECK(false);
  return nullptr;
}

std::vector<std::unique_ptr<Sequence>> FairQueue::Remove(
    const std::function<bool(const Sequence&)>& leaves) {
  std::vector<std::unique_ptr<Sequence>> removed;
  for (const Class& all : classes_) {
    for (const auto& [name, tenant] : all.tenants) {
      for (const auto& [hash, line] : tenant->lines) {
        for (Waiting& waiting : line->waiting) {
          if (leaves(*waiting.sequence)) removed.push_back(std::move(waiting.sequence));
        }
        std::erase_if(line->waiting,
                      [](const Waiting& waiting) { return waiting.sequence == nullptr; });
      }
    }
  }
  size_ -= static_cast<int64_t>(removed.size());
  for (const auto& sequence : removed) Leave(*sequence->line());
  return removed;
}

void FairQueue::Left(const Sequence& sequence) {
  --sequence.line()->tenant->running;
  Leave(*sequence.line());
}

void FairQueue::Computed(const Sequence& sequence, int64_t prompt_tokens, int64_t answer_tokens) {
  const double cost = kPromptWeight * static_cast<double>(prompt_tokens) +
                      kAnswerWeight * static_cast<double>(answer_tokens);
  sequence.line()->served += cost;
  sequence.line()->tenant->served += cost;
}

bool FairQueue::Before(const Sequence& a, const Sequence& b) const {
  const auto turn = [](const FairLine* line) {
    return std::tuple(line->tenant->background, line->tenant->served, line->served);
  };
  return turn(a.line()) < turn(b.line());
}

int64_t FairQueue::RunningOf(const Sequence& sequence) const {
  return sequence.line()->tenant->running;
}

}  // namespace bakestone
