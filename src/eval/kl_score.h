// How far the predictions of other models are from those of one: Kullback-Leibler divergence by
// token, how often the likeliest token is the same, perplexity. What quantizing, merging and
// converting are judged by.
//
// Computed at Precision::kExact (f32 activations, keys, values and sums), so that only the weights
// differ.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

// What predicts: a model, with an adapter or without.
struct Predictor {
  const Model* model = nullptr;
  const Adapter* adapter = nullptr;
};

struct KlScore {
  std::vector<float> kl;                     // [tokens] KL(original || other), nats
  std::vector<uint8_t> same;                 // [tokens] 1: the same likeliest token
  double original_nats = 0, other_nats = 0;  // sums of -log p of the text's next tokens
  int64_t targets = 0;                       // how many: all but the last of each window

  int64_t tokens() const { return static_cast<int64_t>(kl.size()); }
  double MeanKl() const;
  double QuantileKl(double q) const;  // q in [0, 1]
  double Agreement() const;           // share of tokens with the same likeliest one
  double OriginalPerplexity() const;
  double Perplexity() const;
};

struct KlOptions {
  int64_t window = 512;        // tokens seen together; each window starts afresh
  int64_t max_tokens = 12000;  // of each text, from its start
  std::function<void(int64_t done, int64_t total)> progress;  // tokens; may throw to stop
};

// One score for each of `others`, over all texts one after the other. All have the same vocabulary,
// else kInvalidArgument. exec.precision is kExact.
std::vector<KlScore> ScoreKl(const Predictor& original, std::span<const Predictor> others,
                             Exec& exec, std::span<const std::string> texts,
                             const KlOptions& options = {});

// The mean of a over the mean of b, and the upper end of its 95 % interval: a bootstrap over blocks
// of neighbouring tokens, which are no independent draws.
struct RatioEstimate {
  double ratio = 0, upper = 0;
};
RatioEstimate BootstrapRatio(std::span<const float> a, std::span<const float> b,
                             int64_t block = 256, uint64_t seed = 1);

}  // namespace bakestone
