#include "model/train_engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace bakestone {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void CheckAscending(const char* name, std::span<const int32_t> values, int64_t limit) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= limit || (i > 0 && values[i] <= values[i - 1])) {
      Throw(ErrorCode::kInvalidArgument,
            "training batch: expected {} ascending and below {}, found {} at index {}", name, limit,
            values[i], i);
    }
  }
}

void CheckTokens(const char* name, std::span<const int32_t> tokens, int64_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      Throw(ErrorCode::kInvalidArgument,
            "training batch: expected {} in [0, {}), found {} at index {}; was the data tokenized "
            "for another model?",
            name, vocab_size, tokens[i], i);
    }
  }
}

TrainGroup GroupOf(Site site) {
  switch (site) {
    case Site::kQ:
    case Site::kK:
    case Site::kV: return TrainGroup::kQkv;
    case Site::kO: return TrainGroup::kO;
    case Site::kGate:
    case Site::kUp: return TrainGroup::kGateUp;
    case Site::kDown: return TrainGroup::kDown;
  }
  return TrainGroup::kDown;
}

}  // namespace

TrainEngine::TrainEngine(const ModelConfig& config, TrainSource source, const TrainKernels& kernels,
                         ThreadPool& pool, PassOptions options)
    : config_(config),
      kernels_(kernels),
      pool_(pool),
      options_(options),
      weights_(config, std::move(source), kernels, pool, options.weight_cache_bytes),
      layer_(config, weights_, kernels, pool),
      head_(config, weights_, kernels, pool),
      rope_({.theta = config.rope.theta,
             .dim = config.rope.dim,
             .linear_scale = config.rope.linear_scale,
             .frequency_factors = config.rope.frequency_factors}),
      saved_(static_cast<size_t>(config.num_layers)) {
  no_adapter_.Pack(config, nullptr, kernels, pool);
}

TrainPhases TrainEngine::phases() const {
  TrainPhases phases = layer_.phases;
  phases.head = head_seconds_;
  return phases;
}

void TrainEngine::Check(const TrainBatch& batch) const {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  const bool shapes = rows > 0 && batch.positions.size() == batch.tokens.size() &&
                      !batch.document_begins.empty() && batch.document_begins[0] == 0 &&
                      batch.targets.size() == batch.loss_rows.size() &&
                      batch.weights.size() == batch.loss_rows.size();
  if (!shapes) {
    Throw(ErrorCode::kInvalidArgument,
          "training batch: expected tokens, as many positions, documents from row 0 on and a target "
          "and a weight for each loss row, found {} tokens, {} positions, {} documents, {} loss rows, "
          "{} targets, {} weights",
          rows, batch.positions.size(), batch.document_begins.size(), batch.loss_rows.size(),
          batch.targets.size(), batch.weights.size());
  }
  CheckTokens("tokens", batch.tokens, config_.vocab_size);
  CheckTokens("targets", batch.targets, config_.vocab_size);
  CheckAscending("document_begins", batch.document_begins, rows);
  CheckAscending("loss_rows", batch.loss_rows, rows);
}

void TrainEngine::Start(const TrainBatch& batch) {
  Check(batch);
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  if (x_.size() < rows * config_.hidden_dim) x_ = Buffer<float>(rows * config_.hidden_dim);
  rope_.Set(batch.positions);
  batch_ = {.rows = rows, .document_begins = batch.document_begins, .rope = &rope_};
  tokens_ = batch.tokens;
  layer_.Reserve(rows, adapter_.widest());
}

void TrainEngine::Forward(const PackedAdapter& adapter, int64_t first_saved) {
  const int64_t hidden = config_.hidden_dim, size = batch_.rows * hidden;
  pool_.ParallelFor(batch_.rows, 32, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t token = tokens_[static_cast<size_t>(row)];
      weights_.source().embedding({token, token + 1}, DenseView(x_.data() + row * hidden, 1, hidden));
    }
  });
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    LayerSaved& own = saved_[static_cast<size_t>(layer)];
    const bool saves = layer >= first_saved && !options_.recompute;
    if (layer >= first_saved && options_.recompute) {
      if (own.input.size() < size) own.input = Buffer<float>(size);
      std::copy_n(x_.data(), size, own.input.data());
    }
    LayerSaved& saved = saves ? own : shared_;
    saved.Reserve(config_, batch_.rows, adapter_.widest());
    layer_.Forward(layer, batch_, adapter, x_.data(), saved);
  }
}

void TrainEngine::Backward(const LoraLayout& layout, std::span<float> gradients) {
  const LinearId lowest = layout.slots.front().id;
  TrainGroup lowest_group = TrainGroup::kDown;
  for (const LoraSlot& slot : layout.slots) {
    if (slot.id.layer == lowest.layer) lowest_group = std::min(lowest_group, GroupOf(slot.id.site));
  }
  layer_.RoundDx(batch_.rows, dx_.data());
  for (int64_t layer = config_.num_layers - 1; layer >= lowest.layer; --layer) {
    LayerSaved* saved = &saved_[static_cast<size_t>(layer)];
    if (options_.recompute) {
      std::copy_n(saved->input.data(), batch_.rows * config_.hidden_dim, x_.data());
      layer_.Forward(layer, batch_, adapter_, x_.data(), shared_);
      saved = &shared_;
    }
    layer_.Backward(layer, batch_, adapter_, *saved,
                    {.layout = &layout,
                     .out = gradients.data(),
                     .dx = dx_.data(),
                     .lowest = lowest_group,
                     .below = layer > lowest.layer});
  }
}

void TrainEngine::NotePeak() {
  int64_t total = weights_.bytes() + layer_.bytes() + head_.bytes() + adapter_.bytes() +
                  shared_.bytes() + x_.bytes() + dx_.bytes() + base_hidden_.bytes();
  for (const LayerSaved& saved : saved_) total += saved.bytes();
  peak_bytes_ = std::max(peak_bytes_, total);
}

LossSums TrainEngine::Evaluate(const TrainBatch& batch, const Adapter* adapter) {
  adapter_.Pack(config_, adapter, kernels_, pool_);
  Start(batch);
  Forward(adapter_, config_.num_layers);
  const double start = Now();
  const LossSums sums = head_.Run(x_.data(), batch, nullptr, nullptr);
  head_seconds_ += Now() - start;
  NotePeak();
  weights_.ReleaseHead();
  return sums;
}

LossSums TrainEngine::ForwardBackward(const TrainBatch& batch, const Adapter& adapter,
                                      const LoraLayout& layout, float gradient_scale,
                                      bool kl_to_base, std::span<float> gradients) {
  BAKESTONE_CHECK(static_cast<int64_t>(gradients.size()) == layout.size && !layout.slots.empty());
  for (const LoraSlot& slot : layout.slots) {
    const LoraPair* pair = adapter.Find(slot.id);
    BAKESTONE_CHECK(pair != nullptr && pair->a.rows == slot.rank);
  }
  adapter_.Pack(config_, &adapter, kernels_, pool_);
  Start(batch);
  if (batch.loss_rows.empty()) return {};
  if (kl_to_base) {
    Forward(no_adapter_, config_.num_layers);
    head_.Hidden(x_.data(), batch.loss_rows, base_hidden_);
  }
  Forward(adapter_, layout.slots.front().id.layer);
  const int64_t size = batch_.rows * config_.hidden_dim;
  if (dx_.size() < size) dx_ = Buffer<float>(size);
  std::fill_n(dx_.data(), size, 0.0f);
  const TrainHead::Gradient gradient = {.scale = gradient_scale, .dx = dx_.data()};
  const double start = Now();
  const LossSums sums =
      head_.Run(x_.data(), batch, kl_to_base ? base_hidden_.data() : nullptr, &gradient);
  head_seconds_ += Now() - start;
  Backward(layout, gradients);
  NotePeak();
  weights_.ReleaseHead();
  return sums;
}

}  // namespace bakestone
