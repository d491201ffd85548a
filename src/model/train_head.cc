#include "model/train_head.h"

#include <algorithm>

#include "model/train_linear.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"

namespace bakestone {
namespace {

constexpr int64_t kChunkRows = 32;
// Chunks whose gradients are kept for one product with the trained rows of the head, since each
// such product reads and writes their gradient (113 MB for SmolLM2-135M).
constexpr int64_t kChunksTogether = 2;

int64_t PaddedVocab(const ModelConfig& config) {
  return ops::PanelsOf(config.vocab_size) * kTrainLanes;
}

bool TrainsRows(const TrainHead::Gradient* gradient) {
  return gradient != nullptr && gradient->layout->head_rows().rows > 0;
}

void Grow(Buffer<float>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<float>(size);
}
void Grow(Buffer<uint16_t>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<uint16_t>(size, Fill::kZero);
}

}  // namespace

TrainHead::TrainHead(const ModelConfig& config, const TrainKernels& kernels, ThreadPool& pool)
    : config_(config),
      kernels_(kernels),
      pool_(pool),
      loss_(kernels, pool),
      chunk_(ops::TrainLoss::BestRows(config.hidden_dim, config.vocab_size)) {}

int64_t TrainHead::BytesOf(const ModelConfig& config, bool kl, bool trains_rows) {
  constexpr int64_t kF32 = sizeof(float), kBf16 = sizeof(uint16_t);
  const int64_t rows = ops::TrainLoss::BestRows(config.hidden_dim, config.vocab_size);
  const int64_t together = trains_rows ? kChunksTogether * rows + kTrainTileRows : 0;
  return ops::TrainLoss::BytesOf(rows, config.hidden_dim, config.vocab_size, kl) +
         4 * rows * config.hidden_dim * kF32 + together * PaddedVocab(config) * kBf16;
}

int64_t TrainHead::bytes() const noexcept {
  return loss_.bytes() + x_.bytes() + inverse_.bytes() + dh_.bytes() + dx_.bytes() + y_.bytes() +
         hidden_.bytes() + d_logits_.bytes() + hidden_pairs_.bytes() + d_columns_.bytes();
}

void TrainHead::Reserve(const Gradient* gradient) {
  const int64_t hidden = chunk_ * config_.hidden_dim;
  const bool rows = TrainsRows(gradient);
  const int64_t together = (rows ? kChunksTogether : 1) * chunk_ + kTrainTileRows;
  Grow(x_, hidden);
  Grow(inverse_, chunk_);
  Grow(y_, hidden);
  Grow(hidden_, together * config_.hidden_dim);
  if (rows) Grow(d_logits_, together * PaddedVocab(config_));
  if (gradient != nullptr) {
    Grow(dh_, hidden);
    Grow(dx_, hidden);
  }
  const auto size = static_cast<size_t>(chunk_);
  factors_.resize(size);
  nll_.resize(size);
  kl_.resize(size);
  correct_.resize(size);
}

const float* TrainHead::NormWeight(TrainWeights& weights) {
  const float* norm = weights.source().final_norm();
  if (config_.logit_scale == 1) return norm;
  const auto dim = static_cast<size_t>(config_.hidden_dim);
  logit_scales_.assign(dim, config_.logit_scale);
  scaled_norm_.resize(dim);
  for (size_t i = 0; i < dim; ++i) scaled_norm_[i] = norm[i] * config_.logit_scale;
  return scaled_norm_.data();
}

// At most chunk_ rows.
void TrainHead::Normalize(TrainWeights& weights, const float* x, std::span<const int32_t> rows,
                          uint16_t* hidden) {
  const int64_t dim = config_.hidden_dim;
  const bool centred = config_.norm_kind == NormKind::kLayer;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x + rows[i] * dim, dim, x_.data() + static_cast<int64_t>(i) * dim);
  }
  ops::TrainNorm(kernels_, pool_,
                 {.x = x_.data(),
                  .weight = NormWeight(weights),
                  .bias = centred ? weights.source().final_norm_bias() : nullptr,
                  .centred = centred,
                  .rows = static_cast<int64_t>(rows.size()),
                  .dim = dim,
                  .eps = config_.norm_eps,
                  .y = y_.data(),
                  .h = hidden,
                  .inverse = inverse_.data()});
}

void TrainHead::Hidden(TrainWeights& weights, const float* x, std::span<const int32_t> rows,
                       Buffer<uint16_t>& hidden) {
  Reserve(nullptr);
  const auto count = static_cast<int64_t>(rows.size());
  Grow(hidden, (count + kTrainTileRows) * config_.hidden_dim);
  for (int64_t begin = 0; begin < count; begin += chunk_) {
    const int64_t n = std::min(chunk_, count - begin);
    Normalize(weights, x, rows.subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
              hidden.data() + begin * config_.hidden_dim);
  }
}

void TrainHead::ChunkBackward(TrainWeights& weights, std::span<const int32_t> rows,
                              const Gradient& gradient) {
  const int64_t dim = config_.hidden_dim;
  const auto count = static_cast<int64_t>(rows.size());
  std::fill_n(dx_.data(), count * dim, 0.0f);
  ops::TrainNormBackward(kernels_, pool_,
                         {.centred = config_.norm_kind == NormKind::kLayer,
                          .dh = dh_.data(),
                          .y = y_.data(),
                          .inverse = inverse_.data(),
                          .weight = NormWeight(weights),
                          .rows = count,
                          .dim = dim,
                          .dx = dx_.data(),
                          .dx_bf16 = nullptr});
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(dx_.data() + i * dim, dim, gradient.dx + rows[static_cast<size_t>(i)] * dim);
  }
  if (gradient.layout->final_norm < 0) return;
  ops::TrainColumnDot(kernels_, pool_,
                      {.a = dh_.data(),
                       .a_bf16 = nullptr,
                       .a_stride = dim,
                       .b = y_.data(),
                       .b_stride = dim,
                       .factor = config_.logit_scale == 1 ? nullptr : logit_scales_.data(),
                       .rows = count,
                       .sums = gradient.out + gradient.layout->final_norm},
                      dim);
}

// The trained rows of the head, of the `count` rows that hidden_ and d_logits_ hold.
void TrainHead::RowsBackward(TrainWeights& weights, int64_t count, const Gradient& gradient) {
  const RowsSlot& slot = gradient.layout->head_rows();
  PackRowPairs(kernels_, pool_, hidden_.data(), count, config_.hidden_dim, hidden_pairs_);
  AddMatrixGradient(kernels_, pool_,
                    {.dy = d_logits_.data(),
                     .dy_stride = weights.padded_vocab(),
                     .first = slot.first,
                     .cols = slot.rows,
                     .x_pairs = hidden_pairs_.data(),
                     .in = config_.hidden_dim,
                     .rows = count,
                     .out = gradient.out + slot.offset},
                    d_columns_);
}

void TrainHead::ChunkLoss(TrainWeights& weights, const TrainBatch& batch, int64_t begin,
                          int64_t count, const uint16_t* hidden, const Base* base,
                          const Gradient* gradient, uint16_t* d_logits) {
  const auto first = static_cast<size_t>(begin);
  for (size_t i = 0; i < static_cast<size_t>(count) && gradient != nullptr; ++i) {
    factors_[i] = batch.weights[first + i] * gradient->scale;
  }
  ops::TrainLossArgs args = {.model = {hidden, weights.Head()},
                             .base = {},
                             .rows = count,
                             .dim = config_.hidden_dim,
                             .vocab = config_.vocab_size,
                             .soft_cap = config_.final_soft_cap,
                             .targets = batch.targets.data() + first,
                             .nll = nll_.data(),
                             .kl = kl_.data(),
                             .correct = correct_.data(),
                             .transposed = gradient == nullptr ? nullptr : weights.HeadTransposed(),
                             .factors = factors_.data(),
                             .d_hidden = dh_.data(),
                             .d_logits = d_logits,
                             .d_stride = weights.padded_vocab()};
  if (base != nullptr) {
    args.base = {base->hidden + begin * config_.hidden_dim, base->weights->Head()};
  }
  loss_.Run(args);
}

LossSums TrainHead::Run(TrainWeights& weights, const float* x, const TrainBatch& batch,
                        const Base* base, const Gradient* gradient, Rows* rows) {
  Reserve(gradient);
  const bool together = TrainsRows(gradient);
  LossSums sums;
  const auto count = static_cast<int64_t>(batch.loss_rows.size());
  if (rows != nullptr) *rows = {};
  // Chunks of about the same size: the last one reads the head as often as the others.
  const int64_t chunks = (count + chunk_ - 1) / chunk_;
  const int64_t chunk =
      chunks == 0 ? 0 : ((count + chunks - 1) / chunks + kChunkRows - 1) / kChunkRows * kChunkRows;
  int64_t kept = 0;  // rows in hidden_ and d_logits_ whose share of the head's gradient is to come
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t n = std::min(chunk, count - begin);
    const auto first = static_cast<size_t>(begin), size = static_cast<size_t>(n);
    const std::span<const int32_t> which = batch.loss_rows.subspan(first, size);
    uint16_t* hidden = hidden_.data() + kept * config_.hidden_dim;
    Normalize(weights, x, which, hidden);
    ChunkLoss(weights, batch, begin, n, hidden, base, gradient,
              together ? d_logits_.data() + kept * weights.padded_vocab() : nullptr);
    for (size_t i = 0; i < size; ++i) {
      const auto weight = static_cast<double>(batch.weights[first + i]);
      sums.nll += weight * nll_[i];
      if (base != nullptr) sums.kl += weight * kl_[i];
      sums.weight += weight;
      sums.correct += correct_[i];
    }
    if (rows != nullptr) {
      rows->nll.insert(rows->nll.end(), nll_.begin(), nll_.begin() + n);
      rows->correct.insert(rows->correct.end(), correct_.begin(), correct_.begin() + n);
    }
    if (gradient == nullptr) continue;
    ChunkBackward(weights, which, *gradient);
    if (!together) continue;
    kept += n;
    if (kept + chunk <= kChunksTogether * chunk_ && begin + n < count) continue;
    RowsBackward(weights, kept, *gradient);
    kept = 0;
  }
  sums.rows = count;
  return sums;
}

}  // namespace bakestone
