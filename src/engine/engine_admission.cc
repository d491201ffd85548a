// Who is computed next: from the queue to the running ones and back, and out.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "engine/engine_impl.h"

namespace bakestone {

// Returns false when the engine stops. Otherwise something is running.
bool Engine::Impl::WaitForWork() {
  std::unique_lock lock(mutex);
  while (true) {
    TakeCancelled(lock);
    if (!stopping && !cut) Admit();
    metrics.running = static_cast<int64_t>(running.size());
    if (running.empty() && waiting.empty()) idle.notify_all();
    if (stopping) return false;
    if (!running.empty()) return true;
    wake.wait(lock);
  }
}

// Ends those that were cancelled or took too long, or all when the engine stops. Sinks are called
// without the lock.
void Engine::Impl::TakeCancelled(std::unique_lock<std::mutex>& lock) {
  const bool all = stopping || cut;
  const auto now = Clock::now();
  const auto late = [&](const Sequence& sequence) {
    return sequence.request().deadline && *sequence.request().deadline <= now;
  };
  const auto taken = [&](const Sequence& sequence) {
    return all || late(sequence) || cancels.contains(sequence.id());
  };
  std::vector<std::unique_ptr<Sequence>> ended = waiting.Remove(taken);
  for (const auto& sequence : ended) {
    --metrics.waiting;
    metrics.waiting_tokens -= sequence->prompt_size();
  }
  for (auto& sequence : running) {
    if (!taken(*sequence)) continue;
    reserved_pages -= sequence->pages();
    waiting.Left(*sequence);
    ended.push_back(std::move(sequence));
  }
  std::erase(running, nullptr);
  cancels.clear();
  if (ended.empty()) return;
  metrics.cancelled += static_cast<int64_t>(ended.size());
  lock.unlock();
  for (auto& sequence : ended) {
    std::optional<Error> why;
    if (all) {
      why = Error(ErrorCode::kUnavailable, "the server is shutting down; the answer was cut");
    }
    if (!all && late(*sequence)) {
      why = Error(ErrorCode::kUnavailable,
                  fmt::format("the answer was not complete within the {:g} s that it may take",
                              options.max_request_seconds));
    }
    if (sequence->started()) sequence->Release(pool);
    sequence->Fail(why ? FinishReason::kError : FinishReason::kCancelled, why);
  }
  lock.lock();
}

FairQueue::Verdict Engine::Impl::Judge(const Sequence& next) const {
  using enum FairQueue::Verdict;
  if (static_cast<int64_t>(running.size()) >= options.max_running ||
      reserved_pages + next.pages() > pool.capacity_pages()) {
    return kTooLarge;
  }
  // Choices of one request wait for the first one's prompt, which they then find in the cache.
  const bool twin_first = !next.keys().empty() && !next.request().prompt_logprobs &&
                          std::any_of(running.begin(), running.end(), [&](const auto& other) {
                            return other->prefilling() && !other->keys().empty() &&
                                   other->keys().back() == next.keys().back();
                          });
  return twin_first ? kLater : kFits;
}

// From the queue to the running ones, while memory for all of the answer is there.
void Engine::Impl::Admit() {
  MakeRoom();
  while (static_cast<int64_t>(running.size()) < options.max_running) {
    auto next = waiting.Take(running, [&](const Sequence& sequence) { return Judge(sequence); });
    if (!next) return;
    Start(std::move(next));
  }
}

void Engine::Impl::Start(std::unique_ptr<Sequence> sequence) {
  --metrics.waiting;
  metrics.waiting_tokens -= sequence->prompt_size();
  reserved_pages += sequence->pages();
  sequence->Start(pool);
  if (!sequence->resumed()) {
    metrics.prompt_tokens += sequence->prompt_size();
    metrics.cached_tokens += sequence->usage().cached_tokens;
  }
  running.push_back(std::move(sequence));
}

// Who is not in the background waits for nobody who is. And a tenant without anything running need
// not wait until others have ended: the youngest of those that have most make room, as long as it
// asks for no more than its share. What they computed stays in the prefix cache if it can.
void Engine::Impl::MakeRoom() {
  const bool any_background = std::any_of(
      running.begin(), running.end(), [](const auto& one) { return one->request().background; });
  const Sequence* first = any_background ? waiting.First() : nullptr;
  if (first && !first->request().background && MakeRoomFor(*first, true)) return;
  const Sequence* next = waiting.FirstOfIdleTenant();
  if (next && next->pages() <= pool.capacity_pages() / waiting.ActiveTenantsLike(*next)) {
    MakeRoomFor(*next, false);
  }
}

// Suspends running ones and starts this one, if it does not fit and enough of them may be
// suspended.
bool Engine::Impl::MakeRoomFor(const Sequence& next, bool of_background_only) {
  if (Judge(next) != FairQueue::Verdict::kTooLarge) return false;
  std::vector<Sequence*> victims;
  int64_t pages = reserved_pages + next.pages(), slots = static_cast<int64_t>(running.size()) + 1;
  while (pages > pool.capacity_pages() || slots > options.max_running) {
    Sequence* victim = nullptr;
    int64_t most = 1;  // every tenant keeps one
    for (auto it = running.rbegin(); it != running.rend(); ++it) {
      Sequence& one = **it;
      if (!one.suspendable() || std::find(victims.begin(), victims.end(), &one) != victims.end()) {
        continue;
      }
      if (one.request().background && !next.request().background) {
        victim = &one;
        break;
      }
      if (of_background_only || one.request().background != next.request().background) continue;
      const auto gone = std::count_if(victims.begin(), victims.end(), [&](const Sequence* other) {
        return other->request().tenant == one.request().tenant &&
               other->request().background == one.request().background;
      });
      const int64_t left = waiting.RunningOf(one) - gone;
      if (left <= most) continue;
      victim = &one;
      most = left;
    }
    if (!victim) return false;
    victims.push_back(victim);
    pages -= victim->pages();
    --slots;
  }
  auto mine = waiting.Take(next);
  for (Sequence* victim : victims) {
    const auto at = std::find_if(running.begin(), running.end(),
                                 [&](const auto& sequence) { return sequence.get() == victim; });
    victim->Suspend(pool);
    reserved_pages -= victim->pages();
    ++metrics.waiting;
    ++metrics.suspended;
    metrics.waiting_tokens += victim->prompt_size();
    waiting.Return(std::move(*at));
    running.erase(at);
  }
  Start(std::move(mine));
  return true;
}

void Engine::Impl::End(Sequence& sequence, FinishReason reason, std::optional<Error> error) {
  LogError("request {} failed: {}", sequence.id(), error ? error->what() : "unknown");
  sequence.Fail(reason, std::move(error));
  std::lock_guard lock(mutex);
  ++metrics.failed;
}

void Engine::Impl::Retire() {
  std::lock_guard lock(mutex);
  for (auto& sequence : running) {
    if (!sequence->finished()) continue;
    sequence->Release(pool);
    waiting.Left(*sequence);
    reserved_pages -= sequence->pages();
    metrics.completion_tokens += sequence->usage().completion_tokens;
    metrics.proposed_tokens += sequence->usage().proposed_tokens;
    metrics.accepted_tokens += sequence->usage().accepted_tokens;
    ++metrics.finished;
    sequence.reset();
  }
  std::erase(running, nullptr);
}

}  // namespace bakestone
