#include "train/recipe_stage.h"

#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "train/recipe.h"
#include "train/recipe_tables.h"

namespace bakestone {
namespace {

ReplayRecipe ReadReplay(TomlTable table) {
  ReplayRecipe replay;
  replay.data = table.String("data");
  replay.share = table.Number("share", 0.2, 0.0, 0.9);
  replay.kl_weight = table.Number("kl_weight", 0, 0, 100);
  replay.length = table.Integer("length", replay.length, 8, 1 << 20);
  table.Finish();
  return replay;
}

}  // namespace

LoraRecipe ReadLora(TomlTable table) {
  LoraRecipe lora;
  lora.rank = table.Integer("rank", lora.rank, 1, 1024);
  lora.alpha = table.Number("alpha", 2.0 * static_cast<double>(lora.rank), 1e-3, 1e5);
  lora.rslora = table.Boolean("rslora", false);
  if (auto targets = table.Strings("targets"); !targets.empty()) lora.targets = std::move(targets);
  table.Finish();
  return lora;
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

std::string StageKey(const Recipe& recipe, const StageRecipe& stage) {
  std::string key = fmt::format(
      "stage 1|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|lora {} {} {}", stage.name,
      static_cast<int>(stage.method), stage.epochs, stage.batch, stage.sequence_length,
      stage.learning_rate, stage.final_rate, stage.warmup, stage.weight_decay, stage.beta1,
      stage.beta2, stage.clip, recipe.seed, recipe.lora.rank, recipe.lora.alpha,
      recipe.lora.rslora);
  if (stage.join > 1) key += fmt::format("|join {}", stage.join);
  for (const std::string& target : recipe.lora.targets) key += " " + target;
  if (stage.replay) {
    key += fmt::format("|replay {} {} {}", stage.replay->share, stage.replay->kl_weight,
                       stage.replay->length);
  }
  return key;
}

}  // namespace bakestone
