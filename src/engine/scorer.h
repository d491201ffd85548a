// Scores of texts, or of texts beside a question: what the head of a classifier makes of them, one
// logit for each label (rerankers have one label). A text's logits do not depend on the others. One
// thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

class Scorer {
 public:
  // Throws kUnsupported for a model without such a head.
  Scorer(std::shared_ptr<const Model> model, const KernelTable& kernels, ThreadPool& pool);

  // The logits of each text [labels], or of each pair of the question and a text. Throws
  // kInvalidArgument naming a text (by its number, from 1) that, with the question, is empty or
  // longer than the context; kUnsupported where the tokenizer has no form for pairs.
  std::vector<std::vector<float>> Score(const std::optional<std::string>& question,
                                        std::span<const std::string> texts);
  int64_t tokens() const { return tokens_; }  // of all so far

 private:
  std::shared_ptr<const Model> model_;
  Exec exec_;
  int64_t tokens_ = 0;
};

}  // namespace bakestone
