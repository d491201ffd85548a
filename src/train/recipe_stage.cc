#include "train/recipe_stage.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "train/recipe.h"
#include "train/recipe_tables.h"

namespace bakestone {
namespace {

ReplayRecipe ReadReplay(TomlTable table, std::vector<std::string>* defaults) {
  constexpr double kShare = 0.2;
  ReplayRecipe replay;
  const auto by_default = [&](const char* key, const std::string& value) {
    if (!table.Has(key)) defaults->push_back(fmt::format("replay's {} {}", key, value));
  };
  by_default("share", fmt::format("{:g}", kShare));
  by_default("kl_weight", fmt::format("{:g}", replay.kl_weight));
  by_default("length", fmt::format("{} tokens", replay.length));
  replay.data = table.String("data");
  replay.share = table.Number("share", kShare, 0.0, 0.9);
  replay.kl_weight = table.Number("kl_weight", replay.kl_weight, 0, 100);
  replay.length = table.Integer("length", replay.length, 8, 1 << 20);
  table.Finish();
  return replay;
}

// What suits the method and what is trained, where the recipe does not say otherwise.
void SetDefaults(const LoraRecipe& lora, StageRecipe* stage) {
  // A new row knows nothing that a high rate could harm, and has little time.
  constexpr double kNewRowsRate = 3;
  const AdapterKind kind = lora.kind;
  if (lora.new_tokens && !lora.full() && !lora.embeddings) stage->embedding_rate = kNewRowsRate;
  if (kind == AdapterKind::kFull) {
    stage->learning_rate = 2e-5;
    stage->weight_decay = 0.1;
  }
  if (stage->method == TrainMethod::kDpo) {
    stage->learning_rate = kind == AdapterKind::kFull ? 5e-7 : 5e-6;
    stage->schedule = Schedule::kLinear;
    stage->warmup = 0.1;
    stage->final_rate = 0;
    stage->batch = 32;
  }
}

void RefuseWithout(TomlTable& table, const StageRecipe& stage) {
  const auto only = [&](const char* key, bool set, bool right, const char* where) {
    if (!set || right) return;
    Throw(ErrorCode::kInvalidArgument, "{}: '{}': expected only with {}", table.where(), key,
          where);
  };
  const bool dpo = stage.method == TrainMethod::kDpo;
  if (stage.join > 1 && stage.method != TrainMethod::kSft) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'join': expected 1 with method \"{}\" (only conversations are joined), found {}",
          table.where(), dpo ? "dpo" : "pretrain", stage.join);
  }
  only("beta", table.Has("beta"), dpo, "method \"dpo\"");
  only("length_normalized", table.Has("length_normalized"), dpo, "method \"dpo\"");
  only("decay", table.Has("decay"), stage.schedule == Schedule::kWsd, "schedule \"wsd\"");
}

// A stage's name is part of names of files, and stands beside those of a bake's other steps.
void CheckName(const TomlTable& table, const std::string& name) {
  static constexpr std::string_view kTaken[] = {"licence", "data",  "before",
                                                "export",  "after", "serve"};
  const bool plain = name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
                       return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                              (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
                     });
  if (plain && std::find(std::begin(kTaken), std::end(kTaken), name) == std::end(kTaken)) return;
  Throw(ErrorCode::kInvalidArgument,
        "{}: 'name': expected letters, digits, '-', '_' and '.' (it names files), and none of {}, "
        "which a bake has already; found '{}'",
        table.where(), fmt::join(kTaken, ", "), name);
}

// Values of the stage's keys; notes which ones the recipe leaves to their defaults.
class StageReader {
 public:
  StageReader(TomlTable& table, StageRecipe* stage) : table_(table), stage_(*stage) {}

  void Number(const char* key, double StageRecipe::* field, double least, double most) {
    double& value = stage_.*field;
    if (!table_.Has(key)) stage_.defaults.push_back(fmt::format("{} {:g}", key, value));
    value = table_.Number(key, value, least, most);
  }
  void Integer(const char* key, int64_t StageRecipe::* field, int64_t least, int64_t most) {
    int64_t& value = stage_.*field;
    if (!table_.Has(key)) stage_.defaults.push_back(fmt::format("{} {}", key, value));
    value = table_.Integer(key, value, least, most);
  }

 private:
  TomlTable& table_;
  StageRecipe& stage_;
};

constexpr std::pair<Schedule, const char*> kSchedules[] = {{Schedule::kCosine, "cosine"},
                                                           {Schedule::kLinear, "linear"},
                                                           {Schedule::kWsd, "wsd"},
                                                           {Schedule::kConstant, "constant"}};

void ReadSchedule(TomlTable& table, StageRecipe* stage) {
  std::vector<std::pair<std::string, Schedule>> choices;
  for (const auto& [schedule, name] : kSchedules) {
    // The first one is the default.
    choices.insert(schedule == stage->schedule ? choices.begin() : choices.end(), {name, schedule});
  }
  if (!table.Has("schedule")) stage->defaults.push_back("schedule " + choices.front().first);
  stage->schedule = Choice<Schedule>(table, "schedule", choices);
}

}  // namespace

const char* MethodName(TrainMethod method) {
  switch (method) {
    case TrainMethod::kPretrain:
      return "continued pre-training";
    case TrainMethod::kSft:
      return "supervised fine-tuning";
    case TrainMethod::kDpo:
      return "direct preference optimization";
  }
  return "?";
}

const char* AdapterKindName(AdapterKind kind) {
  static constexpr const char* kNames[] = {"lora", "rslora", "dora", "full"};
  return kNames[static_cast<size_t>(kind)];
}

LoraRecipe ReadLora(TomlTable table, const RecipeFolders& folders) {
  LoraRecipe lora;
  lora.kind = Choice<AdapterKind>(table, "kind",
                                  {{"lora", AdapterKind::kLora},
                                   {"rslora", AdapterKind::kRsLora},
                                   {"dora", AdapterKind::kDora},
                                   {"full", AdapterKind::kFull}});
  if (table.Boolean("rslora", false)) {
    if (lora.kind != AdapterKind::kLora && lora.kind != AdapterKind::kRsLora) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: 'rslora': expected only with kind \"lora\", found kind \"{}\"", table.where(),
            AdapterKindName(lora.kind));
    }
    lora.kind = AdapterKind::kRsLora;
  }
  const std::string start = table.String("start", "");
  if (!start.empty()) lora.start = folders.Resolve(start);
  if (lora.kind == AdapterKind::kFull) {
    for (const char* key : {"rank", "alpha", "start", "embeddings"}) {
      if (!table.Has(key)) continue;
      Throw(ErrorCode::kInvalidArgument, "{}: '{}': expected only with pairs, found kind \"full\"",
            table.where(), key);
    }
  }
  const auto by_default = [&](const char* key, const std::string& value) {
    if (!table.Has(key)) lora.defaults.push_back(fmt::format("{} {}", key, value));
  };
  if (!lora.rslora()) by_default("kind", AdapterKindName(lora.kind));
  lora.rank = table.Integer("rank", lora.rank, 1, 1024);
  lora.alpha = table.Number("alpha", 2.0 * static_cast<double>(lora.rank), 1e-3, 1e5);
  lora.embeddings = table.Boolean("embeddings", false);
  if (!lora.full()) {
    by_default("rank", std::to_string(lora.rank));
    by_default("alpha", fmt::format("{:g} (2 x rank)", lora.alpha));
    by_default("embeddings", "false");
  }
  by_default("targets", "all");
  if (table.Has("targets")) lora.targets = table.Strings("targets");
  if (lora.targets.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'targets': expected [\"all\"] or patterns of names such as q_proj, found none",
          table.where());
  }
  table.Finish();
  return lora;
}

StageRecipe ReadStage(TomlTable table, const LoraRecipe& lora) {
  StageRecipe stage;
  stage.name = table.String("name");
  CheckName(table, stage.name);
  const std::string method = table.String("method");
  if (method == "pretrain") {
    stage.method = TrainMethod::kPretrain;
  } else if (method == "sft") {
    stage.method = TrainMethod::kSft;
  } else if (method == "dpo") {
    stage.method = TrainMethod::kDpo;
  } else {
    Throw(ErrorCode::kInvalidArgument,
          "{}: 'method': expected \"pretrain\", \"sft\" or \"dpo\", found '{}'", table.where(),
          method);
  }
  SetDefaults(lora, &stage);
  stage.data = table.Strings("data");
  if (stage.data.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: 'data': expected at least one name of a [[data]] table",
          table.where());
  }
  ReadSchedule(table, &stage);
  StageReader read(table, &stage);
  read.Number("epochs", &StageRecipe::epochs, 0.01, 1000);
  read.Integer("batch", &StageRecipe::batch, 1, 1 << 16);
  stage.join = table.Integer("join", stage.join, 1, 1 << 16);
  read.Integer("sequence_length", &StageRecipe::sequence_length, 16, 1 << 20);
  read.Number("learning_rate", &StageRecipe::learning_rate, 0, 1);
  if (stage.learning_rate <= 0) {
    Throw(
        ErrorCode::kInvalidArgument,
        "{}: 'learning_rate': expected a number above 0, with which something is learned, found 0",
        table.where());
  }
  read.Number("warmup", &StageRecipe::warmup, 0, 1);
  read.Number("final_rate", &StageRecipe::final_rate, 0, 1);
  if (stage.schedule == Schedule::kWsd || table.Has("decay")) {
    read.Number("decay", &StageRecipe::decay, 0, 1);
  }
  read.Number("weight_decay", &StageRecipe::weight_decay, 0, 1);
  read.Number("beta1", &StageRecipe::beta1, 0, 0.99999);
  read.Number("beta2", &StageRecipe::beta2, 0, 0.9999999);
  read.Number("clip", &StageRecipe::clip, 1e-6, 1e6);
  if (stage.method == TrainMethod::kDpo || table.Has("beta")) {
    read.Number("beta", &StageRecipe::beta, 1e-4, 100);
  }
  stage.length_normalized = table.Boolean("length_normalized", false);
  if (lora.trains_rows() || table.Has("embedding_rate")) {
    read.Number("embedding_rate", &StageRecipe::embedding_rate, 0, 10);
  }
  stage.eval_steps = table.Integer("eval_steps", 0, 0, 1 << 30);
  stage.heldout_tokens = table.Integer("heldout_tokens", stage.heldout_tokens, 1, int64_t{1} << 40);
  stage.answers = table.String("answers", "");
  stage.patience = table.Integer("patience", 0, 0, 1 << 20);
  stage.keep =
      Choice<KeepPolicy>(table, "keep", {{"last", KeepPolicy::kLast}, {"best", KeepPolicy::kBest}});
  stage.keep_last = table.Integer("keep_last", 0, 0, 1000);
  RefuseWithout(table, stage);
  if (auto replay = table.Table("replay"))
    stage.replay = ReadReplay(std::move(*replay), &stage.defaults);
  table.Finish();
  return stage;
}

std::string StageKey(const Recipe& recipe, const StageRecipe& stage) {
  std::string key =
      fmt::format("stage 1|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|lora {} {} {}", stage.name,
                  static_cast<int>(stage.method), stage.epochs, stage.batch, stage.sequence_length,
                  stage.learning_rate, stage.final_rate, stage.warmup, stage.weight_decay,
                  stage.beta1, stage.beta2, stage.clip, recipe.seed, recipe.lora.rank,
                  recipe.lora.alpha, AdapterKindName(recipe.lora.kind));
  if (stage.join > 1) key += fmt::format("|join {}", stage.join);
  for (const std::string& target : recipe.lora.targets) key += " " + target;
  if (stage.schedule != Schedule::kCosine) {
    key += fmt::format("|schedule {} {}", static_cast<int>(stage.schedule), stage.decay);
  }
  if (stage.method == TrainMethod::kDpo) {
    key += fmt::format("|dpo {} {}", stage.beta, stage.length_normalized);
  }
  if (stage.patience > 0 || stage.keep == KeepPolicy::kBest) {
    key += fmt::format("|heldout {} {} {} {}", stage.eval_steps, stage.heldout_tokens,
                       stage.patience, static_cast<int>(stage.keep));
  }
  if (!stage.answers.empty()) key += "|answers " + stage.answers;
  if (recipe.lora.embeddings) key += "|embeddings";
  key += fmt::format("|embedding {}", stage.embedding_rate);
  if (stage.replay) {
    key += fmt::format("|replay {} {} {}", stage.replay->share, stage.replay->kl_weight,
                       stage.replay->length);
  }
  return key;
}

}  // namespace bakestone
