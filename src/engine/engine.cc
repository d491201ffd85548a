#include "engine/engine.h"

#include <utility>

#include "engine/engine_impl.h"

namespace bakestone {
namespace {

EngineOptions Checked(EngineOptions options) {
  const auto at_least = [](const char* name, int64_t value, int64_t low) {
    if (value < low) {
      Throw(ErrorCode::kInvalidArgument, "engine option {}: expected at least {}, found {}", name,
            low, value);
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
    Throw(ErrorCode::kInvalidArgument,
          "engine option target_step_seconds, max_request_seconds: expected 0 or more");
  }
  return options;
}

std::shared_ptr<const Model> Writes(std::shared_ptr<const Model> model) {
  if (!model->config.encoder.both_ways) return model;
  Throw(ErrorCode::kUnsupported,
        "{}: expected a model that writes, found an encoder ({}): bakestone embed makes vectors "
        "with it",
        model->path.string(), model->config.architecture);
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

Engine::Impl::Impl(std::shared_ptr<const Model> model_in, const KernelTable& kernels,
                   ThreadPool& threads, EngineOptions options_in)
    : model(Writes(std::move(model_in))),
      options(Checked(options_in)),
      vocab_size(static_cast<int32_t>(
          std::min<int64_t>(model->tokenizer.vocab_size(), model->config.vocab_size))),
      pool(model->config, options.kv_type, TargetKvBytes(*model, options)),
      runner(*model->decoder, vocab_size, kernels, threads, options.precision),
      speculator(SpeculationFor(options.speculation, *model), *model, kernels, threads,
                 options.kv_type, pool.capacity_pages()) {
  const int64_t most_pages = pool.capacity_pages() - pool.sequence_state_pages();
  max_context = std::min(model->config.context_length, most_pages * kPageTokens);
  if (options.max_context > 0) max_context = std::min(max_context, options.max_context);
  if (options.probe) {
    probed = cost = ProbeStepCost(*model, kernels, threads, options.precision, options.kv_type,
                                  pool, most_pages);
  }
  last_progress = Clock::now();
  thread = std::thread([this] { Loop(); });
}

Engine::Impl::~Impl() {
  {
    std::lock_guard lock(mutex);
    stopping = true;
  }
  wake.notify_all();
  thread.join();
}

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
      request.deadline =
          Clock::now() + std::chrono::duration_cast<Clock::duration>(
                             std::chrono::duration<double>(options.max_request_seconds));
    }
  }
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::unique_lock lock(mutex);
  const auto refuse_if_full = [&] {
    if (!draining && !stopping && !Full(static_cast<int64_t>(requests.size()), tokens)) return;
    metrics.refused += static_cast<int64_t>(requests.size());
    if (draining || stopping) Throw(ErrorCode::kUnavailable, "the server is shutting down");
    Throw(ErrorCode::kUnavailable,
          "{} requests with {} prompt tokens are waiting already; try again later", metrics.waiting,
          metrics.waiting_tokens);
  };
  refuse_if_full();
  RequestId id = next_id;
  next_id += requests.size();
  lock.unlock();
  for (GenerationRequest& request : requests) {  // hashes and copies prompts: not under the lock
    const Hash adapter = request.adapter ? request.adapter->hash() : Hash{};
    const bool far =
        model->config.far(static_cast<int64_t>(request.prompt.size()) + *request.max_tokens);
    const BlockKey root =
        RootKey({model->file_hash, adapter, options.kv_type, request.tenant, far});
    const Sequence::Setting setting = {.root = root,
                                       .use_cache = options.prefix_cache,
                                       .vocab_size = vocab_size,
                                       .state_pages = pool.sequence_state_pages(),
                                       .state_blocks = pool.state_blocks()};
    sequences.push_back(
        std::make_unique<Sequence>(id++, std::move(request), model->tokenizer, setting));
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

bool Engine::Drain(std::chrono::steady_clock::duration deadline) {
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
        std::chrono::duration<double>(Impl::Clock::now() - impl_->last_progress).count();
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

}  // namespace bakestone
