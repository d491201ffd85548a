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
#include "engine/fair_queue.h"
#include "engine/sequence.h"
#include "engine/step_cost.h"
#include "engine/step_runner.h"

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

// A prompt's chunk is never cut smaller: below it the weights are read too often for too few rows. Beside answers they
// are read anyway.
constexpr int64_t kMinChunk = 16, kMinChunkBeside = 8;
// With nobody waiting for a next token a step may be this long: it only delays a cancellation.
constexpr double kIdleStepSeconds = 0.5;
// A step that reads prompts takes as many times what the answers in it take alone. Where it ends a prompt it may take
// this long: it comes once, and somebody gets a first token.
constexpr double kStretch = 2, kEndingStepSeconds = 0.02;
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
  if (!(options.target_step_seconds >= 0) || !(options.max_request_seconds >= 0)) {
    Throw(ErrorCode::kInvalidArgument, "engine option target_step_seconds, max_request_seconds: expected 0 or more");
  }
  return options;
}

std::shared_ptr<const Model> Writes(std::shared_ptr<const Model> model) {
  if (!model->config.encoder.both_ways) return model;
  Throw(ErrorCode::kUnsupported, "{}: expected a model that writes, found an encoder ({}): bakestone embed makes vectors "
        "with it", model->path.string(), model->config.architecture);
}

// A state cannot go back to where a proposed token was not drawn.
SpeculationOptions SpeculationFor(SpeculationOptions options, const Model& model) {
  if (model.config.has_state()) options.mode = Speculation::kOff;
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
      : model(Writes(std::move(model_in))), options(Checked(options_in)),
        vocab_size(static_cast<int32_t>(std::min<int64_t>(model->tokenizer.vocab_size(),
                                                          model->config.vocab_size))),
        pool(model->config, options.kv_type, TargetKvBytes(*model, options)),
        runner(*model->decoder, vocab_size, kernels, threads, options.precision),
        speculator(SpeculationFor(options.speculation, *model), *model, kernels, threads, options.kv_type, pool.capacity_pages()) {
    const int64_t most_pages = pool.capacity_pages() - pool.sequence_state_pages();
    max_context = std::min(model->config.context_length, most_pages * kPageTokens);
    if (options.max_context > 0) max_context = std::min(max_context, options.max_context);
    if (options.probe) {
      probed = cost = ProbeStepCost(*model, kernels, threads, options.precision, options.kv_type, pool, most_pages);
    }
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
  void Start(std::unique_ptr<Sequence> sequence);
  void MakeRoom();
  bool MakeRoomFor(const Sequence& next, bool of_background_only);
  FairQueue::Verdict Judge(const Sequence& next) const;
  std::vector<Work> Plan() const;
  void PlanPrompts(const StepSize& answers, std::vector<Work>& works) const;
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
  StepCost cost, probed;                           // the loop's; probed never changes

  mutable std::mutex mutex;
  std::condition_variable wake, idle;
  FairQueue waiting;
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
    if (options.max_request_seconds > 0 && !request.deadline) {
      request.deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.max_request_seconds));
    }
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
    const bool far = model->config.far(static_cast<int64_t>(request.prompt.size()) + *request.max_tokens);
    const BlockKey root = RootKey({model->file_hash, adapter, options.kv_type, request.tenant, far});
    const Sequence::Setting setting = {.root = root, .use_cache = options.prefix_cache, .vocab_size = vocab_size,
                                       .state_pages = pool.sequence_state_pages(), .state_blocks = pool.state_blocks()};
    sequences.push_back(std::make_unique<Sequence>(id++, std::move(request), model->tokenizer, setting));
  }
  std::vector<RequestId> ids;
  lock.lock();
  refuse_if_full();
  if (metrics.running + metrics.waiting == 0) last_progress = Clock::now();
  for (auto& sequence : sequences) {
    ids.push_back(sequence->id());
    waiting.Add(std::move(sequence));
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

// Ends those that were cancelled or took too long, or all when the engine stops. Sinks are called without the lock.
void Engine::Impl::TakeCancelled(std::unique_lock<std::mutex>& lock) {
  const bool all = stopping || cut;
  const auto now = Clock::now();
  const auto late = [&](const Sequence& sequence) { return sequence.request().deadline && *sequence.request().deadline <= now; };
  const auto taken = [&](const Sequence& sequence) { return all || late(sequence) || cancels.contains(sequence.id()); };
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
    if (all) why = Error(ErrorCode::kUnavailable, "the server is shutting down; the answer was cut");
    if (!all && late(*sequence)) {
      why = Error(ErrorCode::kUnavailable, fmt::format("the answer was not complete within the {:g} s that it may take", options.max_request_seconds));
    }
    if (sequence->started()) sequence->Release(pool);
    sequence->Fail(why ? FinishReason::kError : FinishReason::kCancelled, why);
  }
  lock.lock();
}

FairQueue::Verdict Engine::Impl::Judge(const Sequence& next) const {
  using enum FairQueue::Verdict;
  if (static_cast<int64_t>(running.size()) >= options.max_running || reserved_pages + next.pages() > pool.capacity_pages()) return kTooLarge;
  // Choices of one request wait for the first one's prompt, which they then find in the cache.
  const bool twin_first = !next.keys().empty() && !next.request().prompt_logprobs && std::any_of(running.begin(), running.end(), [&](const auto& other) {
    return other->prefilling() && !other->keys().empty() && other->keys().back() == next.keys().back();
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

// Who is not in the background waits for nobody who is. And a tenant without anything running need not wait until others
// have ended: the youngest of those that have most make room, as long as it asks for no more than its share. What they
// computed stays in the prefix cache if it can.
void Engine::Impl::MakeRoom() {
  const Sequence* first = waiting.First();
  if (first && !first->request().background && MakeRoomFor(*first, true)) return;
  const Sequence* next = waiting.FirstOfIdleTenant();
  if (next && next->pages() <= pool.capacity_pages() / waiting.ActiveTenantsLike(*next)) MakeRoomFor(*next, false);
}

// Suspends running ones and starts this one, if it does not fit and enough of them may be suspended.
bool Engine::Impl::MakeRoomFor(const Sequence& next, bool of_background_only) {
  if (Judge(next) != FairQueue::Verdict::kTooLarge) return false;
  std::vector<Sequence*> victims;
  int64_t pages = reserved_pages + next.pages(), slots = static_cast<int64_t>(running.size()) + 1;
  while (pages > pool.capacity_pages() || slots > options.max_running) {
    Sequence* victim = nullptr;
    int64_t most = 1;  // every tenant keeps one
    for (auto it = running.rbegin(); it != running.rend(); ++it) {
      Sequence& one = **it;
      if (!one.suspendable() || std::find(victims.begin(), victims.end(), &one) != victims.end()) continue;
      if (one.request().background && !next.request().background) {
        victim = &one;
        break;
      }
      if (of_background_only || one.request().background != next.request().background) continue;
      const auto gone = std::count_if(victims.begin(), victims.end(), [&](const Sequence* other) {
        return other->request().tenant == one.request().tenant && other->request().background == one.request().background;
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
    const auto at = std::find_if(running.begin(), running.end(), [&](const auto& sequence) { return sequence.get() == victim; });
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
  std::stable_sort(prompts.begin(), prompts.end(), [&](const Sequence* a, const Sequence* b) { return waiting.Before(*a, *b); });
  const double alone = cost.Predict(answers);
  double seconds = kIdleStepSeconds;
  if (answers.rows > 0) seconds = options.target_step_seconds > 0 ? options.target_step_seconds : kStretch * alone;
  double ending = (options.target_step_seconds > 0 ? seconds : std::max(seconds, kEndingStepSeconds)) - alone;
  seconds -= alone;
  const int64_t smallest = answers.rows > 0 ? kMinChunkBeside : kMinChunk;
  int64_t rows = options.max_step_tokens - answers.rows, least = cost.Known() ? smallest : 2 * kMinChunk;
  if (options.fixed_chunk > 0) rows = std::min(rows, options.fixed_chunk);
  for (Sequence* sequence : prompts) {
    const int64_t position = sequence->state().length();
    const bool ends = sequence->pending() <= cost.RowsWithin(ending, position);
    const int64_t fit = options.fixed_chunk > 0 ? rows : std::max(cost.RowsWithin(ends ? ending : seconds, position), least);
    const int64_t count = std::min({fit, rows, sequence->pending(), sequence->until_states()});
    if (count <= 0) break;
    works.push_back({.sequence = sequence, .count = count});
    StepSize chunk;
    chunk.Add(position, count, 0);
    const double taken = cost.Predict(chunk) - cost.Predict({});
    seconds -= taken;
    ending -= taken;
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
    size.Add(work.sequence->state().length(), work.count + ahead, ahead + (work.count == work.sequence->pending()));
    drafts += ahead;
  }
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
  if (together && (options.probe || (rows >= kMinChunk && drafts == 0))) cost.Learn(size, seconds);
  for (Work& work : works) {
    if (work.error) End(*work.sequence, FinishReason::kError, work.error);
  }
  std::lock_guard lock(mutex);
  for (const Work& work : works) {  // what is read again after a pause is the engine's doing
    waiting.Computed(*work.sequence, work.read_prompt && !work.sequence->resumed() ? work.count : 0, work.drawn);
  }
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

double Engine::ProbedStepSeconds(int64_t answering) const {
  StepSize size;
  for (int64_t i = 0; i < answering; ++i) size.Add(0, 1, 1);
  return impl_->probed.Predict(size);
}

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
