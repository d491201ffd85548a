#include "engine/embedder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/pooled_states.h"
#include "model/pooled_heads.h"

namespace bakestone {
namespace {

std::vector<float> OfLengthOne(const std::vector<double>& numbers) {
  double length = 0;
  for (const double value : numbers) length += value * value;
  const double scale = length > 0 ? 1 / std::sqrt(length) : 0;
  std::vector<float> vector;
  for (const double value : numbers) vector.push_back(static_cast<float>(value * scale));
  return vector;
}

}  // namespace

Embedder::Embedder(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool,
                   std::optional<Pooling> pooling)
    : model_(std::move(model)), exec_(kernels, pool) {
  const EncoderConfig& encoder = model_->config.encoder;
  pooling_ = pooling.value_or(encoder.both_ways ? encoder.pooling : Pooling::kLast);
}

std::vector<std::vector<float>> Embedder::Embed(std::span<const std::string> texts) {
  std::vector<std::vector<float>> vectors;
  std::vector<std::vector<int32_t>> batch;
  int64_t rows = 0;
  const auto flush = [&] {
    const std::vector<std::span<const int32_t>> views(batch.begin(), batch.end());
    for (std::vector<float>& vector : EmbedTokens(views)) vectors.push_back(std::move(vector));
    batch.clear();
    rows = 0;
  };
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<int32_t> tokens = model_->tokenizer.Encode(texts[i]);
    const auto count = static_cast<int64_t>(tokens.size());
    if (count == 0 || count > model_->config.context_length) {
      Throw(ErrorCode::kInvalidArgument, "text {}: expected 1 to {} tokens, found {}", i + 1,
            model_->config.context_length, count);
    }
    if (rows + count > kMaxRows) flush();
    rows += count;
    tokens_ += count;
    batch.push_back(std::move(tokens));
  }
  flush();
  return vectors;
}

std::vector<std::vector<float>> Embedder::EmbedTokens(
    std::span<const std::span<const int32_t>> texts) {
  std::vector<TokenizedText> tokenized;
  for (const std::span<const int32_t> text : texts) tokenized.push_back({.tokens = text});
  const std::vector<PooledState> states = PooledStates(*model_, exec_, tokenized, pooling_);
  std::vector<std::vector<float>> vectors;
  if (model_->config.encoder.dense.empty() || states.empty()) {
    for (const PooledState& state : states) vectors.push_back(OfLengthOne(state.sum));
    return vectors;
  }
  const std::vector<float> means = MeansOf(states);
  const auto count = static_cast<int64_t>(states.size()), width = model_->config.embedding_width();
  std::vector<float> out(static_cast<size_t>(count * width));
  const auto view = DenseView(out.data(), count, width);
  ApplyDense(exec_, model_->config, *model_->weights,
             DenseView(means.data(), count, model_->config.hidden_dim), view);
  for (int64_t i = 0; i < count; ++i) {
    vectors.push_back(OfLengthOne({view.Row(i), view.Row(i) + width}));
  }
  return vectors;
}

}  // namespace bakestone
