// Texts through a model in one step, each one's hidden states after the last layer pooled. What a
// text gives does not depend on the others. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

// Token ids, 1 to the context's length of them, and their types where the model has some (else
// empty: 0).
struct TokenizedText {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> types = {};
};

struct PooledState {
  std::vector<double> sum;  // [hidden_dim] of `count` rows
  int64_t count = 0;
};

std::vector<PooledState> PooledStates(const Model& model, Exec& exec,
                                      std::span<const TokenizedText> texts, Pooling pooling);

// Their means, [texts, hidden_dim].
std::vector<float> MeansOf(std::span<const PooledState> states);

// Rows of a step: enough that weights are read seldom, little enough that activations stay small.
inline constexpr int64_t kMaxPooledRows = 1024;

}  // namespace bakestone
