// Between the files that read a recipe: one function a table of the TOML file. Each reads its keys with
// their ranges, and refuses what it does not know.
#pragma once

#include <filesystem>
#include <string>

#include "format/toml_table.h"
#include "train/recipe_data.h"
#include "train/recipe_stage.h"

namespace bakestone {

// Where relative paths and "cache:NAME" lead.
struct RecipeFolders {
  std::filesystem::path recipe, cache;
  std::filesystem::path Resolve(const std::string& text) const;
};

DataSource ReadDataSource(TomlTable table, const RecipeFolders& folders);
EvalRecipe ReadEval(TomlTable table, const RecipeFolders& folders);
StageRecipe ReadStage(TomlTable table);
LoraRecipe ReadLora(TomlTable table);

}  // namespace bakestone
