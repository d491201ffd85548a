// What takes the pooled rows of an encoder: the dense layers before a vector, and the head that
// scores. Any thread, with an Exec of its own.
#pragma once

#include "model/config.h"
#include "model/exec.h"
#include "model/weights.h"
#include "tensor/matrix_view.h"

namespace bakestone {

// out [texts, embedding_width()] of pooled [texts, hidden_dim]; the config has dense layers.
void ApplyDense(Exec& exec, const ModelConfig& config, const Weights& weights,
                MatrixView<const float> pooled, MatrixView<float> out);

// logits [texts, labels] of pooled [texts, hidden_dim]; the config has a classifier.
void Classify(Exec& exec, const ModelConfig& config, const Weights& weights,
              MatrixView<const float> pooled, MatrixView<float> logits);

}  // namespace bakestone
