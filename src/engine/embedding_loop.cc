#include "engine/embedding_loop.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "engine/embedder.h"
#include "engine/fair_shares.h"

namespace bakestone {
namespace {

using LoopClock = std::chrono::steady_clock;

EmbeddingLoopOptions CheckedLoop(EmbeddingLoopOptions options) {
  const auto& o = options;
  if (std::min({o.max_context, o.max_request_tokens, o.max_requests, o.max_texts, o.max_tokens}) <
          1 ||
      !(o.max_request_seconds >= 0)) {
    Throw(ErrorCode::kInvalidArgument, "embedding options: expected positive limits");
  }
  return options;
}

}  // namespace

struct EmbeddingLoop::Impl {
  struct Pending;
  using Shares = FairShares<Id, Pending*>;
  struct Pending {
    Id id = 0;
    EmbeddingRequest request;
    Shares::Line* line = nullptr;
    std::optional<LoopClock::time_point> deadline;
    int64_t left = 0;  // tokens that no step has taken
    size_t next = 0;   // the first text that no step has taken
    std::optional<Error> error;
  };
  // A text of the step.
  struct Taken {
    Pending* pending;
    std::span<const int32_t> text;
  };

  Impl(std::shared_ptr<const Model> model_in, const KernelTable& kernels, ThreadPool& pool,
       EmbeddingLoopOptions options_in)
      : model(std::move(model_in)),
        options(CheckedLoop(options_in)),
        max_context(std::min(options.max_context, model->config.context_length)),
        vocab_size(static_cast<int32_t>(
            std::min<int64_t>(model->tokenizer.vocab_size(), model->config.vocab_size))),
        embedder(model, kernels, pool),
        last_progress(LoopClock::now()),
        thread([this] { Loop(); }) {}
  ~Impl() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    thread.join();
  }

  int64_t Check(const EmbeddingRequest& request) const;  // its tokens
  Id Submit(EmbeddingRequest request);
  bool Full(int64_t more_texts,
            int64_t more_tokens) const;  // under the lock, as are those until Loop
  Pending* Next();
  std::vector<Taken> Plan();
  void Enter(std::unique_ptr<Pending> pending);
  std::unique_ptr<Pending> Leave(Pending& pending);
  void TakeEnded(std::unique_lock<std::mutex>& lock);
  void Loop();
  void RunStep(std::span<const Taken> step);
  std::vector<std::vector<float>> Compute(std::span<const Taken> step);

  const std::shared_ptr<const Model> model;
  const EmbeddingLoopOptions options;
  const int64_t max_context;
  const int32_t vocab_size;
  Embedder embedder;  // the loop's

  mutable std::mutex mutex;
  std::condition_variable wake, idle;
  std::vector<std::unique_ptr<Pending>> pendings;  // the oldest first; only the loop takes one away
  Shares shares{0};                                // of those
  int64_t num_texts = 0;                           // of those
  std::set<Id> cancels;
  Id next_id = 1;
  bool stopping = false, draining = false, cut = false;
  LoopMetrics metrics;  // running, waiting: counted when asked for
  LoopClock::time_point last_progress;
  std::thread thread;  // last: it uses all of the others
};

int64_t EmbeddingLoop::Impl::Check(const EmbeddingRequest& request) const {
  const auto& texts = request.texts;
  if (texts.empty()) {
    Throw(ErrorCode::kInvalidArgument, "input: expected at least one text, found none");
  }
  if (std::ssize(texts) > options.max_texts) {
    Throw(ErrorCode::kOutOfMemory, "input: expected at most {} texts, found {}", options.max_texts,
          texts.size());
  }
  int64_t tokens = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string where = texts.size() == 1 ? "input" : fmt::format("input[{}]", i);
    const auto count = static_cast<int64_t>(texts[i].size());
    if (count == 0) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected at least one token, found none", where);
    }
    if (count > max_context) {
      Throw(ErrorCode::kOutOfMemory, "{}: expected at most {} tokens, the longest text, found {}",
            where, max_context, count);
    }
    for (const int32_t id : texts[i]) {
      if (id < 0 || id >= vocab_size) {
        Throw(ErrorCode::kInvalidArgument, "{}: expected token ids from 0 to {}, found {}", where,
              vocab_size - 1, id);
      }
    }
    tokens += count;
  }
  const int64_t most = std::min(options.max_request_tokens, options.max_tokens);
  if (tokens > most) {
    Throw(ErrorCode::kOutOfMemory,
          "input: expected at most {} tokens in all texts together, found {}", most, tokens);
  }
  return tokens;
}

bool EmbeddingLoop::Impl::Full(int64_t more_texts, int64_t more_tokens) const {
  return std::ssize(pendings) >= options.max_requests ||
         num_texts + more_texts > options.max_texts ||
         metrics.waiting_tokens + more_tokens > options.max_tokens;
}

EmbeddingLoop::Id EmbeddingLoop::Impl::Submit(EmbeddingRequest request) {
  auto pending = std::make_unique<Pending>();
  pending->left = Check(request);
  pending->request = std::move(request);
  if (options.max_request_seconds > 0) {
    pending->deadline =
        LoopClock::now() + std::chrono::duration_cast<LoopClock::duration>(
                               std::chrono::duration<double>(options.max_request_seconds));
  }
  std::unique_lock lock(mutex);
  if (draining || stopping || Full(std::ssize(pending->request.texts), pending->left)) {
    ++metrics.refused;
    if (draining || stopping) Throw(ErrorCode::kUnavailable, "the server is shutting down");
    Throw(ErrorCode::kUnavailable, "{} requests with {} texts are waiting already; try again later",
          pendings.size(), num_texts);
  }
  const Id id = pending->id = next_id++;
  if (pendings.empty()) last_progress = LoopClock::now();
  Enter(std::move(pending));
  lock.unlock();
  wake.notify_one();
  return id;
}

void EmbeddingLoop::Impl::Enter(std::unique_ptr<Pending> pending) {
  pending->line = &shares.Enter(pending->request.tenant, /*background=*/false, pending->id);
  pending->line->payload = pending.get();
  num_texts += std::ssize(pending->request.texts);
  ++metrics.submitted;
  metrics.waiting_tokens += pending->left;
  pendings.push_back(std::move(pending));
}

std::unique_ptr<EmbeddingLoop::Impl::Pending> EmbeddingLoop::Impl::Leave(Pending& pending) {
  metrics.waiting_tokens -= pending.left;
  num_texts -= std::ssize(pending.request.texts);
  shares.Leave(*pending.line);
  const auto at = std::find_if(pendings.begin(), pendings.end(),
                               [&](const auto& other) { return other.get() == &pending; });
  std::unique_ptr<Pending> left = std::move(*at);
  pendings.erase(at);
  return left;
}

// Whose text is next; null: every text was taken.
EmbeddingLoop::Impl::Pending* EmbeddingLoop::Impl::Next() {
  Pending* best = nullptr;
  const auto turn = [](const Pending& pending) {
    return std::pair(Shares::Turn(*pending.line), pending.id);
  };
  shares.ForEachLine([&](const Shares::Line& line) {
    Pending& pending = *line.payload;
    if (pending.next < pending.request.texts.size() && (!best || turn(pending) < turn(*best))) {
      best = &pending;
    }
  });
  return best;
}

std::vector<EmbeddingLoop::Impl::Taken> EmbeddingLoop::Impl::Plan() {
  std::vector<Taken> step;
  int64_t rows = 0;
  while (Pending* next = Next()) {
    const std::vector<int32_t>& text = next->request.texts[next->next];
    const auto count = static_cast<int64_t>(text.size());
    if (rows > 0 && rows + count > Embedder::kMaxRows) break;
    step.push_back({next, text});
    rows += count;
    ++next->next;
    next->left -= count;
    Shares::Count(*next->line, static_cast<double>(count));
    metrics.waiting_tokens -= count;
  }
  return step;
}

// Ends those that were cancelled or took too long, or all when the loop stops. Sinks are called
// without the lock.
void EmbeddingLoop::Impl::TakeEnded(std::unique_lock<std::mutex>& lock) {
  const bool all = stopping || cut;
  const auto now = LoopClock::now();
  const auto late = [&](const Pending& pending) {
    return pending.deadline && *pending.deadline <= now;
  };
  std::vector<Pending*> leaving;
  for (const auto& pending : pendings) {
    if (all || late(*pending) || cancels.contains(pending->id)) leaving.push_back(pending.get());
  }
  cancels.clear();
  if (leaving.empty()) return;
  std::vector<std::unique_ptr<Pending>> ended;
  for (Pending* pending : leaving) ended.push_back(Leave(*pending));
  metrics.cancelled += static_cast<int64_t>(ended.size());
  lock.unlock();
  for (const auto& pending : ended) {
    EmbeddingEvent event{.last = true, .cancelled = !all && !late(*pending)};
    if (all) {
      event.error =
          Error(ErrorCode::kUnavailable, "the server is shutting down; the answer was cut");
    }
    if (!all && late(*pending)) {
      event.error =
          Error(ErrorCode::kUnavailable,
                fmt::format("the answer was not complete within the {:g} s that it may take",
                            options.max_request_seconds));
    }
    pending->request.sink(std::move(event));
  }
  ended.clear();
  lock.lock();
}

void EmbeddingLoop::Impl::Loop() {
  std::unique_lock lock(mutex);
  while (true) {
    TakeEnded(lock);
    if (pendings.empty()) idle.notify_all();
    if (stopping && pendings.empty()) return;
    if (stopping) continue;  // it was said while sinks were told
    const std::vector<Taken> step = Plan();
    if (step.empty()) {
      wake.wait(lock);
      continue;
    }
    lock.unlock();
    RunStep(step);
    lock.lock();
  }
}

// A step's failure belongs to whoever fails without the others too.
std::vector<std::vector<float>> EmbeddingLoop::Impl::Compute(std::span<const Taken> step) {
  const auto run = [&](std::span<const Taken> part) {
    std::vector<std::span<const int32_t>> texts;
    for (const Taken& taken : part) texts.push_back(taken.text);
    return embedder.EmbedTokens(texts);
  };
  try {
    return run(step);
  } catch (const std::exception& error) {
    LogWarning("a step of {} texts failed ({}); each is tried alone", step.size(), error.what());
  }
  std::vector<std::vector<float>> vectors(step.size());
  for (size_t i = 0; i < step.size(); ++i) {
    Pending& pending = *step[i].pending;
    try {
      if (!pending.error) vectors[i] = std::move(run(step.subspan(i, 1)).front());
    } catch (const Error& error) {
      pending.error = error;
    } catch (const std::exception& error) {
      pending.error = Error(ErrorCode::kInternal, error.what());
    }
  }
  return vectors;
}

void EmbeddingLoop::Impl::RunStep(std::span<const Taken> step) {
  const auto start = LoopClock::now();
  std::vector<std::vector<float>> vectors = Compute(step);
  const auto end = LoopClock::now();
  std::vector<std::pair<Pending*, EmbeddingEvent>> told;  // in the order of their first texts
  int64_t tokens = 0;
  for (size_t i = 0; i < step.size(); ++i) {
    tokens += static_cast<int64_t>(step[i].text.size());
    auto at = std::find_if(told.begin(), told.end(),
                           [&](const auto& one) { return one.first == step[i].pending; });
    if (at == told.end()) at = told.emplace(told.end(), step[i].pending, EmbeddingEvent{});
    at->second.vectors.push_back(std::move(vectors[i]));
  }
  {
    std::lock_guard lock(mutex);
    ++metrics.steps;
    metrics.busy_seconds += std::chrono::duration<double>(end - start).count();
    metrics.prompt_tokens += tokens;
    last_progress = end;
  }
  for (auto& [pending, event] : told) {
    event.last = pending->error || pending->next == pending->request.texts.size();
    event.error = pending->error;
    if (event.error) event.vectors.clear();
    if (event.error) {
      LogError("embeddings of request {} failed: {}", pending->id, event.error->what());
    }
    const bool last = event.last;
    pending->request.sink(std::move(event));
    if (!last) continue;
    std::unique_ptr<Pending> ended;  // goes without the lock
    std::lock_guard lock(mutex);
    ++(pending->error ? metrics.failed : metrics.finished);
    ended = Leave(*pending);
  }
}

EmbeddingLoop::EmbeddingLoop(std::shared_ptr<const Model> model, const KernelTable& kernels,
                             ThreadPool& pool, EmbeddingLoopOptions options)
    : impl_(std::make_unique<Impl>(std::move(model), kernels, pool, options)) {}

EmbeddingLoop::~EmbeddingLoop() = default;

EmbeddingLoop::Id EmbeddingLoop::Submit(EmbeddingRequest request) {
  return impl_->Submit(std::move(request));
}

void EmbeddingLoop::Cancel(Id id) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->cancels.insert(id);
  }
  impl_->wake.notify_one();
}

bool EmbeddingLoop::QueueFull() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->Full(1, 1);
}

bool EmbeddingLoop::Draining() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->draining;
}

bool EmbeddingLoop::Drain(LoopClock::duration deadline) {
  std::unique_lock lock(impl_->mutex);
  impl_->draining = true;
  const auto empty = [&] { return impl_->pendings.empty(); };
  if (impl_->idle.wait_for(lock, deadline, empty)) return true;
  impl_->cut = true;
  impl_->wake.notify_one();
  impl_->idle.wait(lock, empty);
  return false;
}

LoopMetrics EmbeddingLoop::Load() const {
  std::lock_guard lock(impl_->mutex);
  LoopMetrics metrics = impl_->metrics;
  for (const auto& pending : impl_->pendings) {
    ++(pending->next > 0 ? metrics.running : metrics.waiting);
  }
  if (!impl_->pendings.empty()) {
    metrics.seconds_since_progress =
        std::chrono::duration<double>(LoopClock::now() - impl_->last_progress).count();
  }
  return metrics;
}

const Model& EmbeddingLoop::model() const noexcept { return *impl_->model; }
int64_t EmbeddingLoop::max_context() const noexcept { return impl_->max_context; }

}  // namespace bakestone
