// How well a model predicts a text: bits per byte (comparable over tokenizers) and perplexity by
// token. Computed with the serving arithmetic: what a user of the served model gets.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

struct TextScore {
  int64_t tokens = 0;  // scored: all but the first of each window
  int64_t bytes = 0;   // of the scored tokens
  double nats = 0;     // sum of -log p

  double BitsPerByte() const;
  double Perplexity() const;
};

struct TextScoreOptions {
  int64_t window = 512;        // tokens seen together; each window starts afresh
  int64_t max_tokens = 12000;  // from the text's start
  std::function<void(int64_t done, int64_t total)>
      progress;  // tokens; may be empty. May throw to stop
};

// adapter null: the base. Throws kInvalidArgument for a text of fewer than two tokens.
TextScore ScoreText(const Model& model, const Adapter* adapter, Exec& exec, const std::string& text,
                    const TextScoreOptions& options = {});

}  // namespace bakestone
