#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "base/log.h"
#include "engine/sequence.h"
#include "engine/step_runner.h"

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

// A prompt's chunk is never cut smaller: below it the weights are read too often for too few rows.
constexpr int64_t kMinChunk = 16;
// With nobody waiting for a next token, a step may be this much longer: it only delays a cancellation.
constexpr double kIdleStretch = 5;
// How often Generate lets its caller cancel while no text comes.
constexpr std::chrono::milliseconds kPollInterval{50};

EngineOptions Checked(EngineOptions options) {
  const auto at_least = [](const char* name, int64_t value, int64_t low) {
    if (value < low) {
      Throw(ErrorCode::kInvalidArgument, "engine option {}: expected at least {}, found {}", name, low, value);
    }
  };
  at_least("max_running", options.max_running, 1);
  at_least("max_step_tokens", options.max_step_tokens, options.max_running + 1);
  at_least("max_queued_requests", options.max_queued_requests, 1);
  at_least("max_queued_tokens", options.max_queued_tokens, 1);
  at_least("default_max_tokens", options.default_max_tokens, 1);
  at_least("max_context", options.max_context, 0);
  at_least("fixed_chunk", options.fixed_chunk, 0);
  return options;
}

// What is left of kv_bytes when the draft model gets as many pages as the target.
int64_t TargetKvBytes(const Model& model, const EngineOptions& options) {
  const int64_t page = KvPageBytes(model.config, options.kv_type);
  const Model* draft = options.speculation.draft.get();
  const int64_t both = page + (draft ? KvPageBytes(draft->config, options.kv_type) : 0);
  return options.kv_bytes / both * page;
}

}  // namespace

struct Engine::Impl {
  Impl(std::shared_ptr<const Model> model_in, const KernelTable& kernels, ThreadPool& threads,
       EngineOptions options_in)
      : model(std::move(model_in)), options(Checked(options_in)),
        vocab_size(static_cast<int32_t>(std::min<int64_t>(model->tokenizer.vocab_size(),
                                                          model->config.vocab_size))),
        pool(model->config, options.kv_type, TargetKvBytes(*model, options)),
        runner(*model->decoder, vocab_size, kernels, threads, options.precision),
        speculator(options.speculation, *model, kernels, threads, options.kv_type, pool.capacity_pages()) {
    max_context = std::min(model->config.context_length, pool.capacity_pages() * kPageTokens);
    if (options.max_context > 0) max_context = std::min(max_context, options.max_context);
    last_progress = Clock::now();
    thread = std::thread([this] { Loop(); });
  }
  ~Impl() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    thread.join();
  }

  std::vector<RequestId> Submit(std::vector<GenerationRequest> requests);
  bool Full(int64_t more_requests, int64_t more_tokens) const;  // under the lock
  void Loop();
  bool WaitForWork();
  void TakeCancelled(std::unique_lock<std::mutex>& lock);
  void Admit();
  std::vector<Work> Plan() const;
  void RunStep();
  void RunAlone(std::vector<Work>& works);
  void Retire();
  void End(Sequence& sequence, FinishReason reason, std::optional<Error> error);

  const std::shared_ptr<const Model> model;
  const EngineOptions options;
  const int32_t vocab_size;
  int64_t max_context = 0;
  StatePool pool;       // the loop's
  StepRunner runner;    // the loop's
  Speculator speculator;  // the loop's
  std::vector<std::unique_ptr<Sequence>> running;  // the loop's; oldest first
  int64_t reserved_pages = 0;                      // the loop's
  double seconds_per_row = 0;                      // the loop's: measured; 0 at first

  mutable std::mutex mutex;
  std::condition_variable wake, idle;
  std::deque<std::unique_ptr<Sequence>> waiting;
  std::set<RequestId> cancels;
  RequestId next_id = 1;
  bool stopping = false, draining = false, cut = false;
  EngineMetrics metrics;  // running, waiting... kept current
  Clock::time_point last_progress;
  std::thread thread;
};

bool Engine::Impl::Full(int64_t more_requests, int64_t more_tokens) const {
  return metrics.waiting + more_requests > options.max_queued_requests ||
         metrics.waiting_tokens + more_tokens > options.max_queued_tokens;
}

std::vector<RequestId> Engine::Impl::Submit(std::vector<GenerationRequest> requests) {
  int64_t tokens = 0;
  for (GenerationRequest& request : requests) {
    CheckRequest(request, model->tokenizer, model->config.vocab_size, max_context);
    if (!request.max_tokens) {
      request.max_tokens = std::min(options.default_max_tokens,
                                    max_context - static_cast<int64_t>(request.prompt.size()));
    }
    tokens += static_cast<int64_t>(request.prompt.size());
  }
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::unique_lock lock(mutex);
  const auto refuse_if_full = [&] {
    if (!draining && !stopping && !Full(static_cast<int64_t>(requests.size()), tokens)) return;
    metrics.refused += static_cast<int64_t>(requests.size());
    if (draining || stopping) Throw(ErrorCode::kUnavailable, "the server is shutting down");
    Throw(ErrorCode::kUnavailable, "{} requests with {} prompt tokens are waiting already; try again later",
          metrics.waiting, metrics.waiting_tokens);
  };
  refuse_if_full();
  RequestId id = next_id;
  next_id += requests.size();
  lock.unlock();
  for (GenerationRequest& request : requests) {  // hashes and copies prompts: not under the lock
    const Hash adapter = request.adapter ? request.adapter->hash() : Hash{};
    const BlockKey root = RootKey({model->file_hash, adapter, options.kv_type, request.cache_salt});
    const Sequence::Setting setting = {.root = root, .use_cache = options.prefix_cache, .vocab_size = vocab_size};
    sequences.push_back(std::make_unique<Sequence>(id++, std::move(request), model->tokenizer, setting));
  }
  std::vector<RequestId> ids;
  lock.lock();
  refuse_if_full();
  if (metrics.running + metrics.waiting == 0) last_progress = Clock::now();
  for (auto& sequence : sequences) {
    ids.push_back(sequence->id());
    waiting.push_back(std::move(sequence));
    ++metrics.submitted;
    ++metrics.waiting;
  }
  metrics.waiting_tokens += tokens;
  lock.unlock();
  wake.notify_one();
  return ids;
}

void Engine::Impl::Loop() {
  while (WaitForWork()) {
    RunStep();
    Retire();
  }
}

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

// Ends those that were cancelled, or all when the engine stops. Sinks are called without the lock.
void Engine::Impl::TakeCancelled(std::unique_lock<std::mutex>& lock) {
  std::vector<std::unique_ptr<Sequence>> ended;
  const bool all = stopping || cut;
  const auto taken = [&](const std::unique_ptr<Sequence>& sequence) {
    return all || cancels.contains(sequence->id());
  };
  for (auto& sequence : waiting) {
    if (!taken(sequence)) continue;
    --metrics.waiting;
    metrics.waiting_tokens -= sequence->prompt_size();
    ended.push_back(std::move(sequence));
  }
  std::erase(waiting, nullptr);
  for (auto& sequence : running) {
    if (!taken(sequence)) continue;
    reserved_pages -= sequence->pages();
    ended.push_back(std::move(sequence));
  }
  std::erase(running, nullptr);
  cancels.clear();
  if (ended.empty()) return;
  std::optional<Error> why;
  if (all) why = Error(ErrorCode::kUnavailable, "the server is shutting down; the answer was cut");
  metrics.cancelled += static_cast<int64_t>(ended.size());
  lock.unlock();
  for (auto& sequence : ended) {
    if (sequence->started()) sequence->Release(pool);
    sequence->Fail(all ? FinishReason::kError : FinishReason::kCancelled, why);
  }
  lock.lock();
}

// From the queue to the running ones, in order, while memory for all of the answer is there.
void Engine::Impl::Admit() {
  for (auto it = waiting.begin(); it != waiting.end();) {
    Sequence& next = **it;
    if (static_cast<int64_t>(running.size()) >= options.max_running ||
        reserved_pages + next.pages() > pool.capacity_pages()) {
      break;
    }
    // Choices of one request wait for the first one's prompt, which they then find in the cache.
    const bool twin_first = !next.keys().empty() && !next.request().prompt_logprobs &&
                            std::any_of(running.begin(), running.end(), [&](const auto& other) {
                              return other->prefilling() && !other->keys().empty() &&
                                     other->keys().back() == next.keys().back();
                            });
    if (twin_first) {
      ++it;
      continue;
    }
    --metrics.waiting;
    metrics.waiting_tokens -= next.prompt_size();
    reserved_pages += next.pages();
    next.Start(pool);
    metrics.prompt_tokens += next.prompt_size();
    metrics.cached_tokens += next.usage().cached_tokens;
    running.push_back(std::move(*it));
    it = waiting.erase(it);
  }
}

// Whoever is being answered gets a row first; prompts share what is left, oldest first.
std::vector<Work> Engine::Impl::Plan() const {
  std::vector<Work> works;
  for (const auto& sequence : running) {
    if (!sequence->prefilling()) works.push_back({.sequence = sequence.get(), .count = sequence->pending()});
  }
  const auto decoding = static_cast<int64_t>(works.size());
  int64_t budget = options.max_step_tokens - decoding;
  if (options.fixed_chunk > 0) {
    budget = std::min(budget, options.fixed_chunk);
  } else {
    const double seconds = options.target_step_seconds * (decoding > 0 ? 1 : kIdleStretch);
    const double rows = seconds_per_row > 0 ? seconds / seconds_per_row : 2.0 * kMinChunk;
    const double chunk = std::min(rows, 1e9) - static_cast<double>(decoding);
    budget = std::min(budget, std::max(kMinChunk, static_cast<int64_t>(chunk)));
  }
  for (const auto& sequence : running) {
    if (budget <= 0) break;
    if (!sequence->prefilling()) continue;
    const int64_t count = std::min(budget, sequence->pending());
    works.push_back({.sequence = sequence.get(), .count = count});
    budget -= count;
  }
  return works;
}

void Engine::Impl::RunStep() {
  std::vector<Work> works = Plan();
  int64_t rows = 0;
  for (const Work& work : works) rows += work.count;
  speculator.Propose(works, options.max_step_tokens - rows);
  int64_t drafts = 0;
  for (const Work& work : works) drafts += static_cast<int64_t>(work.draft.size());
  const auto start = Clock::now();
  bool together = true;
  try {
    runner.Run(works, pool);
  } catch (const std::exception& error) {
    LogWarning("a step of {} requests failed ({}); each is tried alone", works.size(), error.what());
    together = false;
    RunAlone(works);
  }
  const auto end = Clock::now();
  const double seconds = std::chrono::duration<double>(end - start).count();
  if (together) speculator.Learn(works, seconds);
  if (rows >= kMinChunk && drafts == 0) {
    const double now = seconds / static_cast<double>(rows);
    seconds_per_row = seconds_per_row > 0 ? 0.7 * seconds_per_row + 0.3 * now : now;
  }
  for (Work& work : works) {
    if (work.error) End(*work.sequence, FinishReason::kError, work.error);
  }
  std::lock_guard lock(mutex);
  ++metrics.steps;
  metrics.busy_seconds += seconds;
  last_progress = end;
}

// A step's failure belongs to whoever fails without the others too: nothing that they compute depends
// on the company, so the rest simply go on.
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
    reserved_pages -= sequence->pages();
    metrics.completion_tokens += sequence->usage().completion_tokens;
    metrics.proposed_tokens += sequence->usage().proposed_tokens;
    metrics.accepted_tokens += sequence->usage().accepted_tokens;
    ++metrics.finished;
    sequence.reset();
  }
  std::erase(running, nullptr);
}

Engine::Engine(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool,
               EngineOptions options)
    : impl_(std::make_unique<Impl>(std::move(model), kernels, pool, options)) {}

Engine::~Engine() = default;

std::vector<RequestId> Engine::Submit(std::vector<GenerationRequest> requests) {
  return impl_->Submit(std::move(requests));
}

RequestId Engine::Submit(GenerationRequest request) {
  std::vector<GenerationRequest> one;
  one.push_back(std::move(request));
  return impl_->Submit(std::move(one)).front();
}

void Engine::Cancel(RequestId id) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->cancels.insert(id);
  }
  impl_->wake.notify_one();
}

bool Engine::QueueFull() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->Full(1, 1);
}

bool Engine::Draining() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->draining;
}

bool Engine::Drain(Clock::duration deadline) {
  std::unique_lock lock(impl_->mutex);
  impl_->draining = true;
  const auto empty = [&] { return impl_->metrics.running + impl_->metrics.waiting == 0; };
  if (impl_->idle.wait_for(lock, deadline, empty)) return true;
  impl_->cut = true;
  impl_->wake.notify_one();
  impl_->idle.wait(lock, empty);
  return false;
}

EngineMetrics Engine::Metrics() const {
  std::lock_guard lock(impl_->mutex);
  EngineMetrics metrics = impl_->metrics;
  if (metrics.running + metrics.waiting > 0) {
    metrics.seconds_since_progress =
        std::chrono::duration<double>(Clock::now() - impl_->last_progress).count();
  }
  metrics.pool = impl_->pool.stats();
  return metrics;
}

const Model& Engine::model() const noexcept { return *impl_->model; }
int64_t Engine::max_context() const noexcept { return impl_->max_context; }

uint64_t RandomSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

Event Generate(Engine& engine, GenerationRequest request,
               const std::function<bool(const std::string&)>& on_text) {
  struct Mailbox {
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<Event> events;
  };
  const auto box = std::make_shared<Mailbox>();
  request.sink = [box](Event&& event) {
    {
      std::lock_guard lock(box->mutex);
      box->events.push_back(std::move(event));
    }
    box->arrived.notify_one();
  };
  const RequestId id = engine.Submit(std::move(request));
  Event all;
  bool asked_to_stop = false;
  while (true) {
    std::unique_lock lock(box->mutex);
    box->arrived.wait_for(lock, kPollInterval, [&] { return !box->events.empty(); });
    Event event;
    if (!box->events.empty()) {
      event = std::move(box->events.front());
      box->events.pop_front();
      all.usage = event.usage;
    }
    lock.unlock();
    if (on_text && !asked_to_stop && !on_text(event.text)) {
      asked_to_stop = true;
      engine.Cancel(id);
    }
    all.text += event.text;
    std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(all.tokens));
    std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(all.prompt));
    if (!event.finish) continue;
    if (event.error) throw *event.error;
    all.finish = event.finish;
    all.stop_string = event.stop_string;
    return all;
  }
}

}  // namespace bakestone
