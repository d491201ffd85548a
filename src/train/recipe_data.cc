#include "train/recipe_data.h"

#include "train/recipe_tables.h"

namespace bakestone {

std::filesystem::path RecipeFolders::Resolve(const std::string& text) const {
  constexpr std::string_view kCache = "cache:";
  if (text.starts_with(kCache)) return cache / text.substr(kCache.size());
  const std::filesystem::path path(text);
  return path.is_absolute() ? path : recipe / path;
}

DataSource ReadDataSource(TomlTable table, const RecipeFolders& folders) {
  DataSource source;
  source.name = table.String("name");
  source.path = folders.Resolve(table.String("path"));
  source.licence = table.String("licence", "");
  table.Finish();
  return source;
}

EvalRecipe ReadEval(TomlTable table, const RecipeFolders& folders) {
  EvalRecipe eval;
  const std::string questions = table.String("questions", "");
  if (!questions.empty()) {
    eval.questions = folders.Resolve(questions);
    eval.facts = folders.Resolve(table.String("facts"));
  }
  eval.domain = table.Strings("domain");
  eval.general = table.Strings("general");
  eval.system = table.String("system", "");
  eval.max_tokens = table.Integer("max_tokens", eval.max_tokens, 1, 4096);
  eval.text_tokens = table.Integer("text_tokens", eval.text_tokens, 64, int64_t{1} << 40);
  table.Finish();
  return eval;
}

}  // namespace bakestone
