#include "engine/embedder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/decoder.h"

namespace bakestone {

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
      Throw(ErrorCode::kInvalidArgument, "text {}: expected 1 to {} tokens, found {}", i + 1, model_->config.context_length,
            count);
    }
    if (rows + count > kMaxRows) flush();
    rows += count;
    tokens_ += count;
    batch.push_back(std::move(tokens));
  }
  flush();
  return vectors;
}

std::vector<std::vector<float>> Embedder::EmbedTokens(std::span<const std::span<const int32_t>> texts) {
  std::vector<std::vector<float>> vectors;
  if (texts.empty()) return vectors;
  std::vector<int32_t> tokens, positions, rows;
  std::vector<SequenceRun> runs;
  for (const std::span<const int32_t> text : texts) {
    const auto begin = static_cast<int32_t>(tokens.size());
    for (const int32_t token : text) {
      positions.push_back(static_cast<int32_t>(tokens.size()) - begin);
      rows.push_back(static_cast<int32_t>(tokens.size()));
      tokens.push_back(token);
    }
    runs.push_back({begin, static_cast<int32_t>(tokens.size()), nullptr});
  }
  const int64_t width = model_->config.hidden_dim;
  std::vector<float> hidden(tokens.size() * static_cast<size_t>(width));
  const auto view = DenseView(hidden.data(), static_cast<int64_t>(tokens.size()), width);
  model_->decoder->Forward(exec_, {.tokens = tokens, .positions = positions, .sequences = runs, .output_rows = rows}, view);
  for (const SequenceRun& run : runs) {
    std::vector<double> sum(static_cast<size_t>(width));
    const int32_t first = pooling_ == Pooling::kLast ? run.end - 1 : run.begin;
    const int32_t end = pooling_ == Pooling::kFirst ? run.begin + 1 : run.end;
    for (int32_t row = first; row < end; ++row) {
      for (int64_t i = 0; i < width; ++i) sum[static_cast<size_t>(i)] += static_cast<double>(view(row, i));
    }
    double length = 0;
    for (const double value : sum) length += value * value;
    const double scale = length > 0 ? 1 / std::sqrt(length) : 0;
    std::vector<float>& vector = vectors.emplace_back();
    for (const double value : sum) vector.push_back(static_cast<float>(value * scale));
  }
  return vectors;
}

}  // namespace bakestone
