// Between the files that read a recipe: one function a table of the TOML file. Each reads its keys
// with their ranges, and refuses what it does not know.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/toml_table.h"
#include "train/recipe_data.h"
#include "train/recipe_stage.h"

namespace bakestone {

// Where relative paths and "cache:NAME" lead.
struct RecipeFolders {
  std::filesystem::path recipe, cache;
  std::filesystem::path Resolve(const std::string& text) const;
};

// A key with one of a few words; the first is the default.
template <class T>
T Choice(TomlTable& table, const char* key, const std::vector<std::pair<std::string, T>>& choices) {
  const std::string found = table.String(key, choices.front().first);
  std::string known;
  for (const auto& [name, value] : choices) {
    if (name == found) return value;
    known += fmt::format("{}\"{}\"", known.empty() ? "" : ", ", name);
  }
  Throw(ErrorCode::kInvalidArgument, "{}: '{}': expected one of {}, found '{}'", table.where(), key,
        known, found);
}

DataSource ReadDataSource(TomlTable table, const RecipeFolders& folders);
EvalRecipe ReadEval(TomlTable table, const RecipeFolders& folders);
AddTokensRecipe ReadAddTokens(TomlTable table);
ChatRecipe ReadChat(TomlTable table, const RecipeFolders& folders);
WatchRecipe ReadWatch(TomlTable table);
StageRecipe ReadStage(TomlTable table, const LoraRecipe& lora);
LoraRecipe ReadLora(TomlTable table, const RecipeFolders& folders);

}  // namespace bakestone
