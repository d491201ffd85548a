#include "engine/scorer.h"

#include "base/error.h"
#include "engine/pooled_states.h"
#include "model/pooled_heads.h"

namespace bakestone {

Scorer::Scorer(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool)
    : model_(std::move(model)), exec_(kernels, pool) {
  if (model_->config.classifier.labels > 0) return;
  Throw(ErrorCode::kUnsupported,
        "{}: expected a model with a head that scores texts (a reranker, or another with a "
        "classifier), found {} without one",
        model_->path.string(), model_->config.architecture);
}

std::vector<std::vector<float>> Scorer::Score(const std::optional<std::string>& question,
                                              std::span<const std::string> texts) {
  const ModelConfig& config = model_->config;
  std::vector<std::vector<float>> scores;
  std::vector<Tokenizer::Pair> batch;
  int64_t rows = 0;
  const auto flush = [&] {
    if (batch.empty()) return;
    std::vector<TokenizedText> views;
    for (const Tokenizer::Pair& pair : batch) {
      views.push_back({.tokens = pair.ids, .types = pair.types});
    }
    const std::vector<float> pooled =
        MeansOf(PooledStates(*model_, exec_, views, config.classifier.pooling));
    const auto count = static_cast<int64_t>(batch.size()), labels = config.classifier.labels;
    std::vector<float> logits(static_cast<size_t>(count * labels));
    const auto view = DenseView(logits.data(), count, labels);
    Classify(exec_, config, *model_->weights, DenseView(pooled.data(), count, config.hidden_dim),
             view);
    for (int64_t i = 0; i < count; ++i) scores.emplace_back(view.Row(i), view.Row(i) + labels);
    batch.clear();
    rows = 0;
  };
  for (size_t i = 0; i < texts.size(); ++i) {
    Tokenizer::Pair pair;
    if (question) {
      pair = model_->tokenizer.EncodePair(*question, texts[i]);
    } else {
      pair.ids = model_->tokenizer.Encode(texts[i]);
      pair.types.resize(pair.ids.size());
    }
    const auto count = static_cast<int64_t>(pair.ids.size());
    if (count == 0 || count > config.context_length) {
      Throw(ErrorCode::kInvalidArgument, "text {}: expected 1 to {} tokens{}, found {}", i + 1,
            config.context_length, question ? ", the question's among them" : "", count);
    }
    if (rows + count > kMaxPooledRows) flush();
    rows += count;
    tokens_ += count;
    batch.push_back(std::move(pair));
  }
  flush();
  return scores;
}

}  // namespace bakestone
