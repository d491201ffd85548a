// The data half of a recipe: what the run reads and how the result is judged. Read by
// recipe_data.cc; docs/recipes.md lists every key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/data_source.h"

namespace bakestone {

struct EvalRecipe {
  std::filesystem::path questions, facts;    // empty: no questions
  std::vector<std::string> domain, general;  // names of sources; their bits per byte
  std::string system;           // system prompt of the questions; empty: the template's own
  int64_t max_tokens = 64;      // longest answer
  int64_t text_tokens = 12000;  // tokens scored of each text, from its start

  bool empty() const { return questions.empty() && domain.empty() && general.empty(); }
};

// Tokens that the base does not have (pipeline/grown_base.h).
struct AddTokensRecipe {
  std::vector<std::string> list;  // texts
  int64_t learn = 0;              // so many more, learned from sources
  std::vector<std::string> from;  // names of them; empty: those of the first stage

  bool any() const { return !list.empty() || learn > 0; }
};

// A chat template for a base that has none, or in place of its own (pipeline/grown_base.h).
struct ChatRecipe {
  std::string name;                 // "chatml", or the file
  std::string text;                 // the template itself; empty: the base's own is used
  std::vector<std::string> tokens;  // what it writes that must be control tokens
  std::string end;                  // of these the one that ends a turn

  bool any() const { return !text.empty(); }
};

// Texts that are scored while it trains (train/text_watch.h).
struct WatchRecipe {
  std::vector<std::string> domain, general;  // names of sources
  int64_t tokens = 1024;                     // of each text, from its start
  int64_t steps = 0;                         // between two looks; 0: a tenth of the stage's
  double seconds = 0;                        // > 0: of training between two looks, instead
};

}  // namespace bakestone
