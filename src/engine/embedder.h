// Texts as vectors: a model's hidden states after the last layer, pooled, through the dense layers
// that the model may have behind that, and scaled to length 1. Encoders are pooled as their files
// say; a decoder's text by its last token. A text's vector does not depend on the others.
// One thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/pooled_states.h"
#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

class Embedder {
 public:
  Embedder(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool,
           std::optional<Pooling> pooling = std::nullopt);

  // One vector of embedding_width() for each text. Throws kInvalidArgument naming a text (by its
  // number, from 1) that is empty or longer than the context.
  std::vector<std::vector<float>> Embed(std::span<const std::string> texts);
  int64_t tokens() const { return tokens_; }  // of all texts so far

  static constexpr int64_t kMaxRows = kMaxPooledRows;
  // The vectors of texts that are token ids already, 1 to the context's length of them each, in one
  // step.
  std::vector<std::vector<float>> EmbedTokens(std::span<const std::span<const int32_t>> texts);

 private:
  std::shared_ptr<const Model> model_;
  Exec exec_;
  Pooling pooling_;
  int64_t tokens_ = 0;
};

}  // namespace bakestone
