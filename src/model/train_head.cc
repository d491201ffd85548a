#include "model/train_head.h"

#include <algorithm>

#include "ops/train_products.h"
#include "ops/train_rows.h"

namespace bakestone {
namespace {

// Every chunk reads the head twice from memory (113 MB for SmolLM2-135M, some 5 ms) while its products
// take 35 ms for 132 rows. Measured head time per token: 445 us with 60 rows, 435 with 132, 515 with 252,
// whose logits (50 MB) no longer stay in a shared cache of 32 MB.
constexpr int64_t kMaxChunk = 11 * kTrainTileRows;
constexpr int64_t kLogitBytes = int64_t{48} << 20;

}  // namespace

TrainHead::TrainHead(const ModelConfig& config, TrainWeights& weights, const TrainKernels& kernels,
                     ThreadPool& pool)
    : config_(config), weights_(weights), kernels_(kernels), pool_(pool) {
  const int64_t fit = kLogitBytes / (weights.padded_vocab() * static_cast<int64_t>(sizeof(float)));
  chunk_ = std::clamp(fit / kTrainTileRows * kTrainTileRows, kTrainTileRows, kMaxChunk);
}

int64_t TrainHead::bytes() const noexcept {
  return x_.bytes() + inverse_.bytes() + logits_.bytes() + base_logits_.bytes() + dh_.bytes() +
         dx_.bytes() + y_.bytes() + hidden_.bytes() + d_logits_.bytes();
}

void TrainHead::Reserve(bool base, bool gradient) {
  const int64_t hidden = chunk_ * config_.hidden_dim, logits = chunk_ * weights_.padded_vocab();
  if (x_.empty()) {
    x_ = Buffer<float>(hidden);
    inverse_ = Buffer<float>(chunk_);
    y_ = Buffer<uint16_t>(hidden, Fill::kZero);
  }
  if (logits_.empty()) logits_ = Buffer<float>(logits);
  if (hidden_.empty()) hidden_ = Buffer<uint16_t>(hidden, Fill::kZero);
  if (base && base_logits_.empty()) base_logits_ = Buffer<float>(logits);
  if (gradient && d_logits_.empty()) {
    d_logits_ = Buffer<uint16_t>(logits, Fill::kZero);
    dh_ = Buffer<float>(hidden);
    dx_ = Buffer<float>(hidden);
  }
  const auto size = static_cast<size_t>(chunk_);
  factors_.resize(size);
  nll_.resize(size);
  kl_.resize(size);
  correct_.resize(size);
}

// At most chunk_ rows.
void TrainHead::Normalize(const float* x, std::span<const int32_t> rows, uint16_t* hidden) {
  const int64_t dim = config_.hidden_dim;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(x + rows[i] * dim, dim, x_.data() + static_cast<int64_t>(i) * dim);
  }
  ops::TrainNorm(kernels_, pool_,
                 {.x = x_.data(),
                  .weight = weights_.source().final_norm,
                  .rows = static_cast<int64_t>(rows.size()),
                  .dim = dim,
                  .eps = config_.norm_eps,
                  .y = y_.data(),
                  .h = hidden,
                  .inverse = inverse_.data()});
}

void TrainHead::Hidden(const float* x, std::span<const int32_t> rows, Buffer<uint16_t>& hidden) {
  Reserve(false, false);
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t size = (count + kTrainTileRows) * config_.hidden_dim;
  if (hidden.size() < size) hidden = Buffer<uint16_t>(size, Fill::kZero);
  for (int64_t begin = 0; begin < count; begin += chunk_) {
    const int64_t n = std::min(chunk_, count - begin);
    Normalize(x, rows.subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
              hidden.data() + begin * config_.hidden_dim);
  }
}

void TrainHead::Logits(const uint16_t* hidden, int64_t rows, float* logits) {
  TrainGemmArgs product{};
  product.segments[0] = {hidden, config_.hidden_dim, weights_.Head(),
                         config_.hidden_dim * kTrainLanes, config_.hidden_dim};
  product.num_segments = 1;
  product.store = TrainStore::kF32;
  product.rows = rows;
  product.cols = product.out_stride = weights_.padded_vocab();
  product.out = logits;
  ops::TrainGemm(kernels_, pool_, product);
}

void TrainHead::ChunkBackward(std::span<const int32_t> rows, float* dx) {
  const int64_t dim = config_.hidden_dim, vocab = weights_.padded_vocab();
  const auto count = static_cast<int64_t>(rows.size());
  TrainGemmArgs product{};
  product.segments[0] = {d_logits_.data(), vocab, weights_.HeadTransposed(), vocab * kTrainLanes,
                         vocab};
  product.num_segments = 1;
  product.store = TrainStore::kF32;
  product.rows = count;
  product.cols = product.out_stride = dim;
  product.out = dh_.data();
  ops::TrainGemm(kernels_, pool_, product);
  std::fill_n(dx_.data(), count * dim, 0.0f);
  ops::TrainNormBackward(kernels_, pool_,
                         {.dh = dh_.data(),
                          .y = y_.data(),
                          .inverse = inverse_.data(),
                          .weight = weights_.source().final_norm,
                          .rows = count,
                          .dim = dim,
                          .dx = dx_.data(),
                          .dx_bf16 = nullptr});
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(dx_.data() + i * dim, dim, dx + rows[static_cast<size_t>(i)] * dim);
  }
}

LossSums TrainHead::Run(const float* x, const TrainBatch& batch, const uint16_t* base_hidden,
                        const Gradient* gradient) {
  Reserve(base_hidden != nullptr, gradient != nullptr);
  LossSums sums;
  const auto count = static_cast<int64_t>(batch.loss_rows.size());
  for (int64_t begin = 0; begin < count; begin += chunk_) {
    const int64_t n = std::min(chunk_, count - begin);
    const auto first = static_cast<size_t>(begin), size = static_cast<size_t>(n);
    const std::span<const int32_t> rows = batch.loss_rows.subspan(first, size);
    Normalize(x, rows, hidden_.data());
    Logits(hidden_.data(), n, logits_.data());
    if (base_hidden != nullptr) {
      Logits(base_hidden + begin * config_.hidden_dim, n, base_logits_.data());
    }
    for (size_t i = 0; i < size; ++i) {
      factors_[i] = batch.weights[first + i] * (gradient == nullptr ? 0.0f : gradient->scale);
    }
    ops::TrainLoss(kernels_, pool_,
                   {.logits = logits_.data(),
                    .base = base_hidden == nullptr ? nullptr : base_logits_.data(),
                    .stride = weights_.padded_vocab(),
                    .rows = n,
                    .vocab = config_.vocab_size,
                    .targets = batch.targets.data() + first,
                    .factors = factors_.data(),
                    .nll = nll_.data(),
                    .kl = kl_.data(),
                    .correct = correct_.data(),
                    .d_logits = gradient == nullptr ? nullptr : d_logits_.data(),
                    .d_stride = weights_.padded_vocab()});
    for (size_t i = 0; i < size; ++i) {
      const auto weight = static_cast<double>(batch.weights[first + i]);
      sums.nll += weight * nll_[i];
      if (base_hidden != nullptr) sums.kl += weight * kl_[i];
      sums.weight += weight;
      sums.correct += correct_[i];
    }
    if (gradient != nullptr) ChunkBackward(rows, gradient->dx);
  }
  sums.rows = count;
  return sums;
}

}  // namespace bakestone
