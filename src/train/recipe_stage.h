// The training half of a recipe: how an adapter is shaped and what each stage does. Read by
// recipe_stage.cc; docs/recipes.md lists every key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bakestone {

struct ReplayRecipe {
  std::string data;             // name of a source
  double share = 0;             // of the tokens of a step, [0, 0.9]
  double kl_weight = 0;         // > 0: match the base's distribution (KL to base); 0: plain next-token loss
  int64_t length = 128;         // tokens of one piece
};

enum class TrainMethod { kPretrain, kSft };

struct StageRecipe {
  std::string name;
  TrainMethod method = TrainMethod::kSft;
  std::vector<std::string> data;      // names of sources
  double epochs = 1;
  int64_t batch = 8;                  // samples (conversations, or pieces of text) a step
  int64_t join = 1;                   // conversations of a step under one system prompt, at most
  int64_t sequence_length = 512;      // longest sample, tokens
  double learning_rate = 5e-4;        // peak
  double final_rate = 0.1;            // share of the peak that the cosine ends at
  double warmup = 0.03;               // share of the steps
  double weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999;
  double clip = 1.0;                  // largest gradient norm
  std::optional<ReplayRecipe> replay;
};

struct LoraRecipe {
  int64_t rank = 16;
  double alpha = 32;
  bool rslora = false;
  std::vector<std::string> targets = {"all"};  // patterns of names: model/train_layout.h
};

}  // namespace bakestone
