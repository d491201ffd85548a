#include "train/recipe.h"

#include <algorithm>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/file.h"
#include "format/toml_table.h"

namespace bakestone {
namespace {

constexpr int64_t kMaxRecipeBytes = 1 << 20;

std::filesystem::path ResolvePath(const std::string& text, const std::filesystem::path& folder,
                                  const std::filesystem::path& cache_folder) {
  constexpr std::string_view kCache = "cache:";
  if (text.starts_with(kCache)) return cache_folder / text.substr(kCache.size());
  const std::filesystem::path path(text);
  return path.is_absolute() ? path : folder / path;
}

LoraRecipe ReadLora(TomlTable table) {
  LoraRecipe lora;
  lora.rank = table.Integer("rank", lora.rank, 1, 1024);
  lora.alpha = table.Number("alpha", 2.0 * static_cast<double>(lora.rank), 1e-3, 1e5);
  lora.rslora = table.Boolean("rslora", false);
  for (const std::string& name : table.Strings("targets")) {
    if (name == "all") {
      lora.targets.clear();
      break;
    }
    const auto site = ParseSite(name);
    if (!site) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: 'targets': expected \"all\" or names of linear layers (q_proj, k_proj, v_proj, "
            "o_proj, gate_proj, up_proj, down_proj), found '{}'",
            table.where(), name);
    }
    lora.targets.push_back(*site);
  }
  table.Finish();
  std::sort(lora.targets.begin(), lora.targets.end());
  lora.targets.erase(std::unique(lora.targets.begin(), lora.targets.end()), lora.targets.end());
  return lora;
}

std::vector<Site> AllSites() {
  std::vector<Site> sites;
  for (int site = 0; site < kNumSites; ++site) sites.push_back(static_cast<Site>(site));
  return sites;
}

ReplayRecipe ReadReplay(TomlTable table) {
  ReplayRecipe replay;
  replay.data = table.String("data");
  replay.share = table.Number("share", 0.2, 0.0, 0.9);
  replay.kl_weight = table.Number("kl_weight", 0, 0, 100);
  replay.length = table.Integer("length", replay.length, 8, 1 << 20);
  table.Finish();
  return replay;
}

StageRecipe ReadStage(TomlTable table) {
  StageRecipe stage;
  stage.name = table.String("name");
  const std::string method = table.String("method");
  if (method == "pretrain") {
    stage.method = TrainMethod::kPretrain;
  } else if (method == "sft") {
    stage.method = TrainMethod::kSft;
  } else {
    Throw(ErrorCode::kInvalidArgument, "{}: 'method': expected \"pretrain\" or \"sft\", found '{}'",
          table.where(), method);
  }
  stage.data = table.Strings("data");
  if (stage.data.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: 'data': expected at least one name of a [[data]] table",
          table.where());
  }
  stage.epochs = table.Number("epochs", stage.epochs, 0.01, 1000);
  stage.batch = table.Integer("batch", stage.batch, 1, 1 << 16);
  stage.join = table.Integer("join", stage.join, 1, 1 << 16);
  if (stage.join > 1 && stage.method != TrainMethod::kSft) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'join': expected 1 with method \"pretrain\" (only conversations are joined), found {}",
          table.where(), stage.join);
  }
  stage.sequence_length = table.Integer("sequence_length", stage.sequence_length, 16, 1 << 20);
  stage.learning_rate = table.Number("learning_rate", stage.learning_rate, 0, 1);
  stage.final_rate = table.Number("final_rate", stage.final_rate, 0, 1);
  stage.warmup = table.Number("warmup", stage.warmup, 0, 1);
  stage.weight_decay = table.Number("weight_decay", stage.weight_decay, 0, 1);
  stage.beta1 = table.Number("beta1", stage.beta1, 0, 0.99999);
  stage.beta2 = table.Number("beta2", stage.beta2, 0, 0.9999999);
  stage.clip = table.Number("clip", stage.clip, 1e-6, 1e6);
  if (auto replay = table.Table("replay")) stage.replay = ReadReplay(std::move(*replay));
  table.Finish();
  return stage;
}

void ReadEval(TomlTable table, const std::filesystem::path& folder,
              const std::filesystem::path& cache_folder, EvalRecipe* eval) {
  const std::string questions = table.String("questions", "");
  if (!questions.empty()) {
    eval->questions = ResolvePath(questions, folder, cache_folder);
    eval->facts = ResolvePath(table.String("facts"), folder, cache_folder);
  }
  eval->domain = table.Strings("domain");
  eval->general = table.Strings("general");
  eval->system = table.String("system", "");
  eval->max_tokens = table.Integer("max_tokens", eval->max_tokens, 1, 4096);
  eval->text_tokens = table.Integer("text_tokens", eval->text_tokens, 64, int64_t{1} << 40);
  table.Finish();
}

void CheckReferences(const Recipe& recipe) {
  for (const StageRecipe& stage : recipe.stages) {
    for (const std::string& name : stage.data) recipe.Source(name);
    if (stage.replay) recipe.Source(stage.replay->data);
  }
  for (const std::string& name : recipe.eval.domain) recipe.Source(name);
  for (const std::string& name : recipe.eval.general) {
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
  const std::filesystem::path folder =
      file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  TomlTable table(parsed, file.string());
  Recipe recipe;
  recipe.file = file;
  recipe.name = table.String("name");
  if (recipe.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_.") !=
          std::string::npos || recipe.name.front() == '.') {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'name': expected lower-case letters, digits, '-', '_' and '.' (it names a folder and "
          "a model), found '{}'", file.string(), recipe.name);
  }
  recipe.base = table.String("base");
  recipe.seed = static_cast<uint64_t>(table.Integer("seed", 1, 0, INT64_MAX));
  for (TomlTable& entry : table.Tables("data")) {
    DataSource source;
    source.name = entry.String("name");
    source.path = ResolvePath(entry.String("path"), folder, cache_folder);
    source.licence = entry.String("licence", "");
    entry.Finish();
    if (!recipe.data.emplace(source.name, source).second) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected distinct names, found '{}' twice",
            entry.where(), source.name);
    }
  }
  if (auto lora = table.Table("lora")) recipe.lora = ReadLora(std::move(*lora));
  if (recipe.lora.targets.empty()) recipe.lora.targets = AllSites();
  for (TomlTable& entry : table.Tables("stage")) {
    recipe.stages.push_back(ReadStage(std::move(entry)));
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
  if (auto eval = table.Table("eval")) ReadEval(std::move(*eval), folder, cache_folder, &recipe.eval);
  table.Finish();
  CheckReferences(recipe);
  return recipe;
}

std::string StageKey(const Recipe& recipe, const StageRecipe& stage) {
  std::string key = fmt::format(
      "stage 1|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|lora {} {} {}", stage.name,
      static_cast<int>(stage.method), stage.epochs, stage.batch, stage.sequence_length,
      stage.learning_rate, stage.final_rate, stage.warmup, stage.weight_decay, stage.beta1,
      stage.beta2, stage.clip, recipe.seed, recipe.lora.rank, recipe.lora.alpha,
      recipe.lora.rslora);
  if (stage.join > 1) key += fmt::format("|join {}", stage.join);
  for (const Site site : recipe.lora.targets) key += fmt::format(" {}", SiteName(site));
  if (stage.replay) {
    key += fmt::format("|replay {} {} {}", stage.replay->share, stage.replay->kl_weight,
                       stage.replay->length);
  }
  return key;
}

}  // namespace bakestone
