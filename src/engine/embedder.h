// Texts as vectors: a model's hidden states after the last layer, pooled and scaled to length 1. Encoders are pooled as
// their files say; a decoder's text by its last token. A text's vector does not depend on the others.
// One thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

class Embedder {
 public:
  Embedder(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool,
           std::optional<Pooling> pooling = std::nullopt);

  // One vector of hidden_dim for each text. Throws kInvalidArgument naming a text (by its number, from 1) that is empty
  // or longer than the context.
  std::vector<std::vector<float>> Embed(std::span<const std::string> texts);
  int64_t tokens() const { return tokens_; }  // of all texts so far

 private:
  void Batch(std::span<const std::vector<int32_t>> texts, std::vector<std::vector<float>>& vectors);

  std::shared_ptr<const Model> model_;
  Exec exec_;
  Pooling pooling_;
  int64_t tokens_ = 0;
};

}  // namespace bakestone
