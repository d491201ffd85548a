// A recipe: what to train on what, how, and how to judge it, as one TOML file. docs/recipes.md lists
// every key. Reading is strict: an unknown key, a wrong type or a number out of range is an error that
// names the key, what was expected and what was found. Relative paths are relative to the recipe;
// "cache:NAME" is NAME in the data folder under BAKESTONE_HOME.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "model/linear_id.h"

namespace bakestone {

// One source of text or conversations. Everything a run reads is declared, with its licence.
struct DataSource {
  std::string name;
  std::filesystem::path path;   // .txt, .md: text; .jsonl: {"messages"}, {"prompt", "completion"} or {"text"}
  std::string licence;          // SPDX identifier or a hub's word; empty: unknown
};

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
  std::vector<Site> targets;          // default: all linear layers
};

struct EvalRecipe {
  std::filesystem::path questions, facts;      // empty: no questions
  std::vector<std::string> domain, general;    // names of sources; their bits per byte
  std::string system;                          // system prompt of the questions; empty: the template's own
  int64_t max_tokens = 64;                     // longest answer
  int64_t text_tokens = 12000;                 // tokens scored of each text, from its start
};

struct Recipe {
  std::filesystem::path file;
  std::string name;
  std::string base;                   // a path or a name in the home folder
  uint64_t seed = 1;
  std::map<std::string, DataSource> data;
  LoraRecipe lora;
  std::vector<StageRecipe> stages;
  EvalRecipe eval;

  const DataSource& Source(const std::string& name) const;  // throws kInvalidArgument listing the names
};

// cache_folder: what "cache:" stands for.
Recipe ReadRecipe(const std::filesystem::path& file, const std::filesystem::path& cache_folder);

// What a stage's outcome depends on, but for the data and base themselves: the key of resumption.
std::string StageKey(const Recipe& recipe, const StageRecipe& stage);

}  // namespace bakestone
