#include "train/recipe.h"

#include <algorithm>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/file.h"
#include "train/recipe_tables.h"

namespace bakestone {
namespace {

constexpr int64_t kMaxRecipeBytes = 1 << 20;

void CheckNotTrained(const Recipe& recipe, const std::string& name) {
  const DataSource& source = recipe.Source(name);
  for (const StageRecipe& stage : recipe.stages) {
    const bool trained =
        std::find(stage.data.begin(), stage.data.end(), name) != stage.data.end() ||
        (stage.replay && recipe.Source(stage.replay->data).path == source.path);
    if (trained) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: '{}' is scored as general text and trained on in stage '{}': what was forgotten "
            "can only be judged on text that was not trained on; name another source",
            recipe.file.string(), name, stage.name);
    }
  }
}

// Answers that are trained on would only show what was learned by heart.
void CheckAnswers(const Recipe& recipe, const StageRecipe& stage) {
  if (stage.answers.empty()) return;
  const DataSource& source = recipe.Source(stage.answers);
  if (source.heldout > 0) return;
  for (const StageRecipe& other : recipe.stages) {
    for (const std::string& name : other.data) {
      if (recipe.Source(name).path != source.path) continue;
      Throw(ErrorCode::kInvalidArgument,
            "{}: 'answers': stage '{}' is judged by '{}', which stage '{}' trains on; name another "
            "source, or give that one a 'heldout' share",
            recipe.file.string(), stage.name, stage.answers, other.name);
    }
  }
}

// The best of looks that nobody takes would be the last one, without a word.
void CheckLooks(const Recipe& recipe, const StageRecipe& stage) {
  if (!stage.answers.empty() || (stage.patience == 0 && stage.keep == KeepPolicy::kLast)) return;
  for (const std::string& name : stage.data) {
    if (recipe.Source(name).heldout > 0) return;
  }
  Throw(ErrorCode::kInvalidArgument,
        "{}: stage '{}': {}: expected something to judge by: 'answers', or a source with a "
        "'heldout' share; found neither",
        recipe.file.string(), stage.name, stage.patience > 0 ? "'patience'" : "keep = \"best\"");
}

// A rate of what is not trained.
void CheckEmbeddingRate(const Recipe& recipe, const StageRecipe& stage) {
  if (recipe.lora.full() || recipe.lora.trains_rows() || recipe.chat.any() ||
      stage.embedding_rate == StageRecipe().embedding_rate) {
    return;
  }
  Throw(ErrorCode::kInvalidArgument,
        "{}: stage '{}': 'embedding_rate': expected only where the embedding is trained (kind "
        "\"full\", 'embeddings' of [adapter], [add_tokens])",
        recipe.file.string(), stage.name);
}

void CheckReferences(const Recipe& recipe) {
  for (const StageRecipe& stage : recipe.stages) {
    for (const std::string& name : stage.data) recipe.Source(name);
    if (stage.replay) recipe.Source(stage.replay->data);
    CheckAnswers(recipe, stage);
    CheckLooks(recipe, stage);
    CheckEmbeddingRate(recipe, stage);
  }
  for (const auto* names : {&recipe.eval.domain, &recipe.watch.domain, &recipe.add_tokens.from}) {
    for (const std::string& name : *names) recipe.Source(name);
  }
  for (const auto* names : {&recipe.eval.general, &recipe.watch.general}) {
    for (const std::string& name : *names) CheckNotTrained(recipe, name);
  }
}

}  // namespace

const DataSource& Recipe::Source(const std::string& name) const {
  const auto found = data.find(name);
  if (found != data.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [key, source] : data) names.push_back(key);
  Throw(ErrorCode::kInvalidArgument, "{}: expected the name of a [[data]] table ({}), found '{}'",
        file.string(), fmt::join(names, ", "), name);
}

Recipe ReadRecipe(const std::filesystem::path& file, const std::filesystem::path& cache_folder) {
  const std::string text = ReadFile(file, kMaxRecipeBytes);
  toml::table parsed;
  try {
    parsed = toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    Throw(ErrorCode::kInvalidArgument, "{}, line {}, column {}: {}", file.string(),
          error.source().begin.line, error.source().begin.column, error.description());
  }
  const RecipeFolders folders = {
      file.has_parent_path() ? file.parent_path() : std::filesystem::path("."), cache_folder};
  TomlTable table(parsed, file.string());
  Recipe recipe;
  recipe.file = file;
  recipe.name = table.String("name");
  if (recipe.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") !=
          std::string::npos ||
      recipe.name.front() == '.') {
    Throw(
        ErrorCode::kInvalidArgument,
        "{}: 'name': expected lower-case letters, digits, '-', '_' and '.' (it names a folder and "
        "a model), found '{}'",
        file.string(), recipe.name);
  }
  recipe.base = table.String("base");
  recipe.seed = static_cast<uint64_t>(table.Integer("seed", 1, 0, INT64_MAX));
  for (TomlTable& entry : table.Tables("data")) {
    const std::string where = entry.where();
    const DataSource source = ReadDataSource(std::move(entry), folders);
    if (!recipe.data.emplace(source.name, source).second) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected distinct names, found '{}' twice", where,
            source.name);
    }
  }
  auto adapter = table.Table("adapter"), lora = table.Table("lora");
  if (adapter && lora) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected [adapter] or [lora], which mean the same, found both", file.string());
  }
  const toml::table nothing;
  recipe.lora = ReadLora(adapter ? std::move(*adapter)
                         : lora  ? std::move(*lora)
                                 : TomlTable(nothing, file.string() + ": [adapter]"),
                         folders);
  if (auto tokens = table.Table("add_tokens")) {
    recipe.add_tokens = ReadAddTokens(std::move(*tokens));
    recipe.lora.new_tokens = true;
  }
  if (auto chat = table.Table("chat")) {
    recipe.chat = ReadChat(std::move(*chat), folders);
    // As far as the base has not all of them: pipeline/grown_base knows.
    recipe.lora.new_tokens = recipe.lora.new_tokens || !recipe.chat.tokens.empty();
  }
  for (TomlTable& entry : table.Tables("stage")) {
    recipe.stages.push_back(ReadStage(std::move(entry), recipe.lora));
    for (size_t i = 0; i + 1 < recipe.stages.size(); ++i) {
      if (recipe.stages[i].name == recipe.stages.back().name) {
        Throw(ErrorCode::kInvalidArgument, "{}: expected distinct stage names, found '{}' twice",
              file.string(), recipe.stages.back().name);
      }
    }
  }
  if (recipe.stages.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected at least one [[stage]], found none",
          file.string());
  }
  if (auto watch = table.Table("watch")) recipe.watch = ReadWatch(std::move(*watch));
  if (auto eval = table.Table("eval")) recipe.eval = ReadEval(std::move(*eval), folders);
  table.Finish();
  CheckReferences(recipe);
  return recipe;
}

}  // namespace bakestone
