#include "pipeline/bake_data.h"

#include <set>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/machine.h"
#include "engine/chat.h"
#include "pipeline/data_record.h"

namespace bakestone {

using Json = nlohmann::ordered_json;

BakeData::BakeData(const Model& model, const Recipe& recipe, const TrainLayout& layout,
                   const BakeOptions& options, ThreadPool& pool, BakeObserver& observer)
    : model_(model),
      recipe_(recipe),
      layout_(layout),
      options_(options),
      pool_(pool),
      observer_(observer) {
  encode_chat_ = [this](const Json& messages, bool prompt, const Json* tools) {
    return RenderChat(model_, messages, prompt, tools).tokens;
  };
}

void BakeData::Read(const std::filesystem::path& rejects) {
  const StageDataOptions options = {
      .pool = &pool_,
      .rejects = rejects,
      .cache = options_.sample_cache,
      .progress = [this](const std::string& what, const ReadProgress& progress) {
        ShowReading(what, progress);
      }};
  for (const StageRecipe& stage : recipe_.stages) {
    stages_.push_back(ReadStageData(model_, encode_chat_, recipe_, stage, options));
  }
}

StageData BakeData::ReadOne(const StageRecipe& stage) const {
  return ReadStageData(model_, encode_chat_, recipe_, stage,
                       {.pool = &pool_, .cache = options_.sample_cache});
}

std::string BakeData::Key(const StageRecipe& stage) const {
  std::string key = StageKey(recipe_, stage);
  for (const std::string& name : stage.data) key += SourceKey(recipe_.Source(name));
  for (const std::string& name : {stage.answers, stage.replay ? stage.replay->data : ""}) {
    if (!name.empty()) key += SourceKey(recipe_.Source(name));
  }
  return key;
}

Json BakeData::Record() const {
  Json stages = Json::array();
  for (size_t i = 0; i < recipe_.stages.size(); ++i) {
    const StageData& data = stages_[i];
    stages.push_back({{"stage", recipe_.stages[i].name},
                      {"samples", data.train.size()},
                      {"tokens", data.train.counts().tokens},
                      {"trained_tokens", data.train.counts().trained},
                      {"cut", data.train.counts().cut},
                      {"heldout_samples", data.heldout.size()},
                      {"questions", data.answers.size()},
                      {"replay_samples", data.replay.size()},
                      {"replay_tokens", data.replay.counts().tokens}});
  }
  return {{"sources", DataRecord(recipe_, stages_)}, {"stages", std::move(stages)}};
}

MemoryChoice BakeData::FitMemory(const StageRecipe& stage, const StageData& data,
                                 const TrainOptions& train) const {
  return ChooseMemory(model_.config, layout_, stage, data, train, ReadMachine().available_bytes);
}

// Only of files that take a while.
void BakeData::ShowReading(const std::string& what, const ReadProgress& progress) const {
  constexpr int64_t kShown = int64_t{4} << 20;
  if (observer_.Cancelled()) Throw(ErrorCode::kCancelled, "stopped while reading the data");
  if (progress.file_bytes < kShown) return;
  observer_.OnProgress(what, progress.bytes >> 10, progress.file_bytes >> 10, "KiB",
                       fmt::format("{} rows", progress.rows));
}

void BakeData::Show() const {
  ShowSources();
  ShowAdapter();
  for (size_t i = 0; i < recipe_.stages.size(); ++i) {
    const StageRecipe& stage = recipe_.stages[i];
    const StageData& data = stages_[i];
    observer_.OnLine(fmt::format(
        "{}: {} samples, {} tokens, {} of them learned, {} steps{}{}", stage.name,
        data.train.size(), data.train.counts().tokens, data.train.counts().trained,
        NumSteps(stage, data.train.epoch_size()),
        data.replay.size() == 0 ? "" : fmt::format("; {} pieces to replay", data.replay.size()),
        data.answers.size() == 0
            ? ""
            : fmt::format("; {} questions to be judged by", data.answers.size())));
    if (data.train.counts().cut > 0) {
      observer_.OnWarning(fmt::format("{}: {} samples are longer than {} tokens and lose their end",
                                      stage.name, data.train.counts().cut, stage.sequence_length));
    }
    ShowSettings(stage, data);
  }
}

void BakeData::ShowAdapter() const {
  if (recipe_.lora.defaults.empty()) return;
  observer_.OnLine(fmt::format("adapter: by default: {}", fmt::join(recipe_.lora.defaults, ", ")));
}

// What the recipe leaves to this program, and what the stage will need.
void BakeData::ShowSettings(const StageRecipe& stage, const StageData& data) const {
  if (!stage.defaults.empty()) {
    observer_.OnLine(
        fmt::format("{}: by default: {}", stage.name, fmt::join(stage.defaults, ", ")));
  }
  observer_.OnLine(
      fmt::format("{}: {}", stage.name, FitMemory(stage, data, options_.train).Line()));
}

// Each source once, and what a person should know of it.
void BakeData::ShowSources() const {
  std::set<std::string> shown;
  for (const StageData& data : stages_) {
    for (const SourceSummary& source : data.sources) {
      if (shown.insert(source.Line()).second) observer_.OnLine(source.Line());
      for (const std::string& warning : source.Warnings()) {
        if (shown.insert(warning).second) observer_.OnWarning(warning);
      }
    }
  }
  ShowUnknown("source", &DataSource::source);
  ShowUnknown("licence", &DataSource::licence);
}

// Names what the record will not know of what is trained on.
void BakeData::ShowUnknown(std::string_view key, std::string DataSource::* value) const {
  std::vector<std::string> names;
  for (const std::string& name : TrainedSources(recipe_)) {
    if ((recipe_.Source(name).*value).empty()) names.push_back(name);
  }
  if (names.empty()) return;
  observer_.OnLine(
      fmt::format("the record will say that '{}' is unknown of: {} (a key of [[data]])", key,
                  fmt::join(names, ", ")));
}

}  // namespace bakestone
