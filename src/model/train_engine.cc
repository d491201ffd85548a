#include "model/train_engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "model/rope_tables.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"

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

// The loss rows of a document: [first, second) as indices into loss_rows.
std::pair<size_t, size_t> LossRowsOf(const TrainBatch& batch, size_t document) {
  const auto& begins = batch.document_begins;
  const auto at = [&](int32_t row) {
    return static_cast<size_t>(
        std::lower_bound(batch.loss_rows.begin(), batch.loss_rows.end(), row) -
        batch.loss_rows.begin());
  };
  const size_t end =
      document + 1 < begins.size() ? at(begins[document + 1]) : batch.loss_rows.size();
  return {at(begins[document]), end};
}

double DocumentLogProb(const TrainBatch& batch, std::span<const double> row_nll, size_t document,
                       bool mean) {
  const auto [first, end] = LossRowsOf(batch, document);
  double sum = 0;
  for (size_t i = first; i < end; ++i) sum -= row_nll[i];
  return mean && end > first ? sum / static_cast<double>(end - first) : sum;
}

void CheckPairs(const TrainBatch& batch, const Objective& objective) {
  for (const PreferencePair& pair : objective.pairs) {
    for (const int32_t document : {pair.chosen, pair.rejected}) {
      BAKESTONE_CHECK(document >= 0 &&
                      static_cast<size_t>(document) < batch.document_begins.size());
      const auto [first, end] = LossRowsOf(batch, static_cast<size_t>(document));
      BAKESTONE_CHECK(end > first);
    }
  }
}

}  // namespace

LossSums& LossSums::operator+=(const LossSums& other) {
  nll += other.nll;
  kl += other.kl;
  weight += other.weight;
  rows += other.rows;
  correct += other.correct;
  documents += other.documents;
  documents_right += other.documents_right;
  preference += other.preference;
  chosen_reward += other.chosen_reward;
  rejected_reward += other.rejected_reward;
  pairs += other.pairs;
  pairs_right += other.pairs_right;
  return *this;
}

TrainEngine::TrainEngine(const ModelConfig& config, const TrainSource& source,
                         const TrainLayout& layout, float pair_scale, const TrainKernels& kernels,
                         ThreadPool& pool, PassOptions options)
    : config_(config),
      layout_(layout),
      pair_scale_(pair_scale),
      kernels_(kernels),
      pool_(pool),
      options_(options),
      base_source_(source),
      weights_(config, TrainedSource(source, layout, &values_), kernels, pool,
               options.weight_cache_bytes),
      layer_(config, kernels, pool),
      head_(config, kernels, pool),
      rope_(TableOf(config.rope)),
      local_rope_(HasLocalRope(config) ? std::optional<ops::RopeTable>(TableOf(config.local_rope))
                                       : std::nullopt),
      pairs_(config),
      no_pairs_(config),
      saved_(static_cast<size_t>(config.num_layers)) {}

TrainPhases TrainEngine::phases() const {
  TrainPhases phases = layer_.phases;
  phases.head = head_seconds_;
  return phases;
}

void TrainEngine::SetValues(std::span<const float> values) {
  BAKESTONE_CHECK(static_cast<int64_t>(values.size()) == layout_.size);
  values_ = values.data();
  weights_.Changed(layout_);
  if (!layout_.slots.empty()) pairs_.Pack(layout_, values, pair_scale_, kernels_, pool_);
}

TrainWeights& TrainEngine::BaseWeights() {
  const bool only_pairs = layout_.matrices.empty() && layout_.embedding.rows == 0 &&
                          layout_.head.rows == 0 && layout_.attention_norms.empty();
  if (only_pairs) return weights_;
  if (!base_weights_) {
    base_weights_ = std::make_unique<TrainWeights>(config_, base_source_, kernels_, pool_, 0);
  }
  return *base_weights_;
}

void TrainEngine::Check(const TrainBatch& batch) const {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  const bool shapes = rows > 0 && batch.positions.size() == batch.tokens.size() &&
                      !batch.document_begins.empty() && batch.document_begins[0] == 0 &&
                      batch.targets.size() == batch.loss_rows.size() &&
                      batch.weights.size() == batch.loss_rows.size();
  if (!shapes) {
    Throw(
        ErrorCode::kInvalidArgument,
        "training batch: expected tokens, as many positions, documents from row 0 on and a target "
        "and a weight for each loss row, found {} tokens, {} positions, {} documents, {} loss "
        "rows, "
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
  BAKESTONE_CHECK(values_ != nullptr);
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  if (x_.size() < rows * config_.hidden_dim) x_ = Buffer<float>(rows * config_.hidden_dim);
  far_.clear();
  for (size_t i = 0; i < batch.document_begins.size() && !config_.rope.far_factors.empty(); ++i) {
    const int64_t begin = batch.document_begins[i];
    const int64_t end = i + 1 < batch.document_begins.size() ? batch.document_begins[i + 1] : rows;
    far_.insert(far_.end(), static_cast<size_t>(end - begin), config_.far(end - begin) ? 1 : 0);
  }
  rope_.Set(batch.positions, far_);
  if (local_rope_) local_rope_->Set(batch.positions);
  batch_ = {.rows = rows,
            .document_begins = batch.document_begins,
            .rope = &rope_,
            .local_rope = local_rope_ ? &*local_rope_ : nullptr,
            .per_layer = nullptr,
            .weights = nullptr,
            .pairs = nullptr};
  tokens_ = batch.tokens;
  layer_.Reserve(rows);
}

void TrainEngine::Forward(TrainWeights& weights, PackedPairs& pairs, int64_t first_saved) {
  const int64_t hidden = config_.hidden_dim, size = batch_.rows * hidden;
  batch_.weights = &weights;
  batch_.pairs = &pairs;
  pool_.ParallelFor(batch_.rows, 32, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t token = tokens_[static_cast<size_t>(row)];
      weights.source().embedding({token, token + 1},
                                 DenseView(x_.data() + row * hidden, 1, hidden));
    }
  });
  if (config_.embedding_scale != 1) {
    ops::TrainScale(pool_, config_.embedding_scale, batch_.rows, hidden, hidden, x_.data());
  }
  if (config_.per_layer_dim > 0) PlanPerLayer(weights);
  const bool recompute = options_.activation == ActivationPolicy::kRecompute;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    LayerSaved& own = saved_[static_cast<size_t>(layer)];
    if (layer >= first_saved && recompute) {
      if (own.input.size() < size) own.input = Buffer<float>(size);
      std::copy_n(x_.data(), size, own.input.data());
    }
    LayerSaved& saved = layer >= first_saved && !recompute ? own : shared_;
    saved.Reserve(config_, layer, batch_.rows, {pairs.widest(), pairs.dora()});
    layer_.Forward(layer, batch_, x_.data(), saved);
  }
}

// (embedding * sqrt(dim) + norm(projection x / sqrt(hidden_dim))) / sqrt(2), the norm by layer.
void TrainEngine::PlanPerLayer(TrainWeights& weights) {
  const int64_t rows = batch_.rows, hidden = config_.hidden_dim, dim = config_.per_layer_dim,
                width = config_.num_layers * dim;
  const auto grow = [](auto& buffer, int64_t size) {
    if (buffer.size() < size) buffer = std::remove_reference_t<decltype(buffer)>(size);
  };
  grow(per_layer_, rows * width);
  grow(projected_, rows * width);
  grow(rounded_, (rows + kTrainTileRows) * hidden);
  grow(y_, rows * width);
  grow(inverse_, rows * config_.num_layers);
  ops::TrainToBf16(kernels_, pool_, x_.data(), rounded_.data(), rows * hidden);
  TrainGemmArgs product{};
  product.segments[0] = {rounded_.data(), hidden, weights.PerLayerProjection(),
                         hidden * kTrainLanes, hidden};
  product.num_segments = 1;
  product.store = TrainStore::kF32;
  product.rows = rows;
  product.cols = product.out_stride = width;
  product.out = projected_.data();
  ops::TrainGemm(kernels_, pool_, product);
  ops::TrainScale(pool_, 1.0f / std::sqrt(static_cast<float>(hidden)), rows, width, width,
                  projected_.data());
  ops::TrainGroupNorm(pool_, {.x = projected_.data(),
                              .stride = width,
                              .rows = rows,
                              .groups = config_.num_layers,
                              .width = dim,
                              .weight = weights.source().per_layer_norm(),
                              .eps = config_.norm_eps,
                              .y = y_.data(),
                              .inverse = inverse_.data()});
  const float own = std::sqrt(0.5f * static_cast<float>(dim)), rest = std::sqrt(0.5f);
  pool_.ParallelFor(rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t token = tokens_[static_cast<size_t>(row)];
      float* out = per_layer_.data() + row * width;
      weights.source().per_layer_embedding({token, token + 1}, DenseView(out, 1, width));
      const float* from = projected_.data() + row * width;
      for (int64_t i = 0; i < width; ++i) out[i] = own * out[i] + rest * from[i];
    }
  });
  batch_.per_layer = per_layer_.data();
}

void TrainEngine::Backward(std::span<float> gradients) {
  const bool embedding = layout_.embedding.rows > 0;
  const int64_t lowest = layout_.lowest_layer(config_.num_layers);
  layer_.StartBackward(batch_.rows, dx_.data());
  for (int64_t layer = config_.num_layers - 1; layer >= lowest; --layer) {
    LayerSaved* saved = &saved_[static_cast<size_t>(layer)];
    if (options_.activation == ActivationPolicy::kRecompute) {
      std::copy_n(saved->input.data(), batch_.rows * config_.hidden_dim, x_.data());
      layer_.Forward(layer, batch_, x_.data(), shared_);
      saved = &shared_;
    }
    layer_.Backward(layer, batch_, *saved,
                    {.layout = &layout_,
                     .out = gradients.data(),
                     .dx = dx_.data(),
                     .lowest = LowestStep(layout_, layer),
                     .below = layer > lowest || embedding});
  }
  if (embedding) EmbeddingBackward(gradients);
}

// Rows of the batch in order, so that a token that occurs again always adds up the same way;
// threads have channels of their own.
void TrainEngine::EmbeddingBackward(std::span<float> gradients) {
  const RowsSlot& slot = layout_.embedding;
  constexpr int64_t kChannels = 64;
  const int64_t hidden = config_.hidden_dim;
  pool_.ParallelFor((hidden + kChannels - 1) / kChannels, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kChannels, last = std::min(end * kChannels, hidden);
    for (int64_t row = 0; row < batch_.rows; ++row) {
      const int32_t token = tokens_[static_cast<size_t>(row)];
      if (!slot.Holds(token)) continue;
      float* to = gradients.data() + slot.offset + (token - slot.first) * hidden;
      const float* from = dx_.data() + row * hidden;
      for (int64_t i = first; i < last; ++i) to[i] += config_.embedding_scale * from[i];
    }
  });
}

void TrainEngine::NotePeak() {
  int64_t total = weights_.bytes() + layer_.bytes() + head_.bytes() + pairs_.bytes() +
                  shared_.bytes() + x_.bytes() + dx_.bytes() + base_hidden_.bytes() +
                  per_layer_.bytes() + projected_.bytes() + rounded_.bytes() + y_.bytes() +
                  inverse_.bytes();
  if (base_weights_) total += base_weights_->bytes();
  for (const LayerSaved& saved : saved_) total += saved.bytes();
  peak_bytes_ = std::max(peak_bytes_, total);
}

TrainHead::Base TrainEngine::RunBase(const TrainBatch& batch) {
  TrainWeights& base = BaseWeights();
  Forward(base, no_pairs_, config_.num_layers);
  head_.Hidden(base, x_.data(), batch.loss_rows, base_hidden_);
  return {.weights = &base, .hidden = base_hidden_.data()};
}

void TrainEngine::ReleaseHeads() {
  weights_.ReleaseHead();
  if (base_weights_) base_weights_->ReleaseHead();
}

// Fills rows_.
LossSums TrainEngine::Score(const TrainBatch& batch, bool base, bool kl) {
  Start(batch);
  std::optional<TrainHead::Base> reference;
  if (kl) reference = RunBase(batch);
  TrainWeights& weights = base ? BaseWeights() : weights_;
  Forward(weights, base ? no_pairs_ : pairs_, config_.num_layers);
  const double start = Now();
  LossSums sums =
      head_.Run(weights, x_.data(), batch, reference ? &*reference : nullptr, nullptr, &rows_);
  head_seconds_ += Now() - start;
  NotePeak();
  ReleaseHeads();
  for (size_t document = 0; document < batch.document_begins.size(); ++document) {
    const auto [first, end] = LossRowsOf(batch, document);
    if (first == end) continue;
    ++sums.documents;
    const auto* correct = rows_.correct.data();
    if (std::find(correct + first, correct + end, uint8_t{0}) == correct + end) {
      ++sums.documents_right;
    }
  }
  return sums;
}

LossSums TrainEngine::Evaluate(const TrainBatch& batch, const Objective& objective) {
  CheckPairs(batch, objective);
  LossSums sums = Score(batch, false, objective.kl_to_base);
  row_weights_.assign(batch.loss_rows.size(), 0.0f);
  AddPairs(batch, objective, &sums);
  return sums;
}

LossSums TrainEngine::EvaluateBase(const TrainBatch& batch) { return Score(batch, true); }

void TrainEngine::DocumentLogProbs(const TrainBatch& batch, bool length_normalized,
                                   std::span<double> out) {
  BAKESTONE_CHECK(out.size() == batch.document_begins.size());
  Score(batch, false);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = DocumentLogProb(batch, rows_.nll, i, length_normalized);
  }
}

// The losses of the pairs from rows_, and their slopes by row in row_weights_.
void TrainEngine::AddPairs(const TrainBatch& batch, const Objective& objective, LossSums* sums) {
  const bool mean = objective.length_normalized;
  const auto add = [&](int32_t document, double slope) {
    const auto [first, end] = LossRowsOf(batch, static_cast<size_t>(document));
    const double share = mean ? slope / static_cast<double>(end - first) : slope;
    for (size_t i = first; i < end; ++i) row_weights_[i] += static_cast<float>(share);
  };
  for (const PreferencePair& pair : objective.pairs) {
    const auto log_prob = [&](int32_t document) {
      return DocumentLogProb(batch, rows_.nll, static_cast<size_t>(document), mean);
    };
    const double chosen = objective.beta * (log_prob(pair.chosen) - pair.reference_chosen);
    const double rejected = objective.beta * (log_prob(pair.rejected) - pair.reference_rejected);
    const double z = chosen - rejected;
    sums->preference += z > 0 ? std::log1p(std::exp(-z)) : std::log1p(std::exp(z)) - z;
    sums->chosen_reward += chosen;
    sums->rejected_reward += rejected;
    ++sums->pairs;
    if (chosen > rejected) ++sums->pairs_right;
    const double slope = objective.beta / (1 + std::exp(z));  // -d loss / d log p(chosen)
    add(pair.chosen, slope);
    add(pair.rejected, -slope);
  }
}

// The pairs' losses need whole documents' log-probabilities before any gradient: the head runs
// twice.
LossSums TrainEngine::PreferenceBackward(const TrainBatch& batch, const Objective& objective,
                                         const TrainHead::Gradient& gradient) {
  LossSums sums = head_.Run(weights_, x_.data(), batch, nullptr, nullptr, &rows_);
  row_weights_.assign(batch.loss_rows.size(), 0.0f);
  AddPairs(batch, objective, &sums);
  TrainBatch weighted = batch;
  weighted.weights = row_weights_;
  head_.Run(weights_, x_.data(), weighted, nullptr, &gradient);
  return sums;
}

LossSums TrainEngine::LossBackward(const TrainBatch& batch, const Objective& objective,
                                   const TrainHead::Base* base, std::span<float> gradients) {
  const TrainHead::Gradient gradient = {.scale = objective.gradient_scale,
                                        .layout = &layout_,
                                        .out = gradients.data(),
                                        .dx = dx_.data()};
  if (!objective.pairs.empty()) return PreferenceBackward(batch, objective, gradient);
  return head_.Run(weights_, x_.data(), batch, base, &gradient);
}

LossSums TrainEngine::ForwardBackward(const TrainBatch& batch, const Objective& objective,
                                      std::span<float> gradients) {
  BAKESTONE_CHECK(static_cast<int64_t>(gradients.size()) == layout_.size);
  CheckPairs(batch, objective);
  Start(batch);
  if (batch.loss_rows.empty()) return {};
  std::optional<TrainHead::Base> base;
  if (objective.kl_to_base) base = RunBase(batch);
  Forward(weights_, pairs_, layout_.lowest_layer(config_.num_layers));
  const int64_t size = batch_.rows * config_.hidden_dim;
  if (dx_.size() < size) dx_ = Buffer<float>(size);
  std::fill_n(dx_.data(), size, 0.0f);
  const double start = Now();
  const LossSums sums = LossBackward(batch, objective, base ? &*base : nullptr, gradients);
  head_seconds_ += Now() - start;
  Backward(gradients);
  NotePeak();
  ReleaseHeads();
  return sums;
}

}  // namespace bakestone
