#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/stage_reading.h"
#include "train/trainer.h"

namespace bakestone {
namespace {

// A name of people as part of a file's name.
std::string FileWord(std::string text) {
  for (char& c : text) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.';
    if (!plain) c = '-';
  }
  return text;
}

}  // namespace

ReadOptions ReadingOf(const StageRecipe& stage) {
  return {.max_tokens = stage.sequence_length,
          .joinable = stage.join > 1,
          .use = stage.method == TrainMethod::kSft   ? RowUse::kConversations
                 : stage.method == TrainMethod::kDpo ? RowUse::kPreferences
                                                     : RowUse::kTextsAndConversations};
}

StageData ReadStageData(const Model& model, const ChatEncoder& encode_chat, const Recipe& recipe,
                        const StageRecipe& stage, const StageDataOptions& options) {
  StageData data;
  const auto read = [&](const std::string& name, ReadOptions read) {
    const DataSource& source = recipe.Source(name);
    read.pool = options.pool;
    read.cache = options.cache;
    if (!options.rejects.empty()) {
      read.rejects = options.rejects / (FileWord(stage.name + "-" + name) + ".jsonl");
    }
    if (options.progress) {
      read.plan_progress = [&](const ReadProgress& progress) {
        options.progress("comparing " + name, progress);
      };
      read.progress = [&](const ReadProgress& progress) {
        options.progress("tokenizing " + name, progress);
      };
    }
    SourceSamples samples = ReadDataset(model, encode_chat, source, read);
    data.sources.push_back(samples.summary);
    return samples;
  };
  for (const std::string& name : stage.data) {
    const SourceSamples samples = read(name, ReadingOf(stage));
    data.train.Append(samples.train);
    if (samples.heldout.size() > 0) data.heldout.Append(samples.heldout);
  }
  if (!stage.answers.empty()) {
    const SourceSamples samples =
        read(stage.answers, {.max_tokens = stage.sequence_length, .use = RowUse::kConversations});
    data.answers = samples.heldout.size() > 0 ? samples.heldout : samples.train;
  }
  if (stage.replay && stage.replay->share > 0) {
    data.replay = read(stage.replay->data, {.max_tokens = stage.replay->length}).train;
  }
  data.watched = ReadWatchedTexts(model, recipe, options.pool);
  return data;
}

int64_t NumSteps(const StageRecipe& stage, int64_t epoch_size) {
  const double samples = stage.epochs * static_cast<double>(epoch_size);
  return std::max<int64_t>(
      1, static_cast<int64_t>(std::ceil(samples / static_cast<double>(stage.batch))));
}

}  // namespace bakestone
