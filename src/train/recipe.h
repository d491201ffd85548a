// A recipe: what to train on what, how, and how to judge it, as one TOML file. docs/recipes.md
// lists every key. Reading is strict: an unknown key, a wrong type or a number out of range is an
// error that names the key, what was expected and what was found. Relative paths are relative to
// the recipe; "cache:NAME" is NAME in the data folder under BAKESTONE_HOME.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "train/recipe_data.h"
#include "train/recipe_stage.h"

namespace bakestone {

struct Recipe {
  std::filesystem::path file;
  std::string name;
  std::string base;  // a path or a name in the home folder
  uint64_t seed = 1;
  std::map<std::string, DataSource> data;
  LoraRecipe lora;
  std::vector<StageRecipe> stages;
  EvalRecipe eval;
  WatchRecipe watch;
  AddTokensRecipe add_tokens;
  ChatRecipe chat;

  // Whether what is trained is the base with tokens or a template that it does not have.
  bool grows_base() const { return add_tokens.any() || chat.any(); }
  const DataSource& Source(
      const std::string& name) const;  // throws kInvalidArgument listing the names
};

// cache_folder: what "cache:" stands for.
Recipe ReadRecipe(const std::filesystem::path& file, const std::filesystem::path& cache_folder);

// What a stage's outcome depends on, but for the data and base themselves: the key of resumption.
std::string StageKey(const Recipe& recipe, const StageRecipe& stage);

}  // namespace bakestone
