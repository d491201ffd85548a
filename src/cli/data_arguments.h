// What the actions of `bakestone data` work on: the sources of a recipe, or one file.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/data_source.h"
#include "train/recipe.h"

namespace bakestone::cli {

class Flags;

struct DataArguments {
  std::string what;  // a recipe, or a data file
  std::optional<std::string> model, format, source;

  void AddTo(Flags& flags);
};

struct ChosenSource {
  DataSource source;
  StageRecipe stage;  // that trains on it; of a file: one for its kind of rows
};

struct ChosenSources {
  std::vector<ChosenSource> sources;
  std::string model;             // empty: none was named
  std::optional<Recipe> recipe;  // that they are of
};

// Throws kInvalidArgument for a source that the recipe does not have.
ChosenSources Choose(const DataArguments& arguments);

}  // namespace bakestone::cli
