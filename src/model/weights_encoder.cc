// What only encoders have: what is added to the rows of the embedding, and what takes pooled rows.
#include "model/weights_loader.h"

namespace bakestone {

void WeightsLoader::AddEmbeddingParts() {
  const int64_t hidden = config_.hidden_dim, positions = config_.encoder.positions;
  const auto table = [&](const std::string& name, int64_t first, int64_t rows) {
    return Matrix({name, name + ".weight", first, first + rows}, {.n = rows, .k = hidden});
  };
  if (positions > 0) {
    weights_->positions = table(names_.positions, config_.encoder.first_position, positions);
  }
  if (config_.encoder.token_types) {
    weights_->token_types = table(
        names_.token_types, 0, source_.Tensor(std::string(names_.token_types) + ".weight").rows());
  }
  if (config_.encoder.embedding_norm) {
    weights_->embedding_norm = Norm(names_.embedding_norm, hidden);
    weights_->embedding_norm_bias = NormBias(names_.embedding_norm);
  }
}

void WeightsLoader::AddPooledParts() {
  const auto matrix = [&](const std::string& name, LinearShape shape) {
    return Matrix({name, name + ".weight", 0, shape.n}, shape);
  };
  int64_t width = config_.hidden_dim;
  for (const DenseConfig& layer : config_.encoder.dense) {
    weights_->dense.push_back(matrix(layer.tensor, {.n = layer.width, .k = width}));
    width = layer.width;
  }
  const ClassifierConfig& head = config_.classifier;
  if (head.labels == 0) return;
  const int64_t hidden = config_.hidden_dim;
  weights_->classifier.dense = matrix(head.dense, {.n = hidden, .k = hidden});
  weights_->classifier.out = matrix(head.out, {.n = head.labels, .k = hidden});
  if (head.norm.empty()) return;
  weights_->classifier.norm = Norm(head.norm, hidden);
  weights_->classifier.norm_bias = NormBias(head.norm);
}

}  // namespace bakestone
