// The data half of a bake: what every stage trains on, read before hours of work, said to people
// and written down.
#pragma once

#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pipeline/bake.h"
#include "train/memory_choice.h"

namespace bakestone {

class BakeData {
 public:
  // Keeps references.
  BakeData(const Model& model, const Recipe& recipe, const TrainLayout& layout,
           const BakeOptions& options, ThreadPool& pool, BakeObserver& observer);

  // Reads and checks what all stages train on. rejects: folder for the rows that are not used;
  // empty: they are not written. Throws kCancelled, and what ReadStageData throws.
  void Read(const std::filesystem::path& rejects);
  StageData ReadOne(const StageRecipe& stage) const;

  // Tells the observer what was read: sources, counts, settings by default, memory.
  void Show() const;
  nlohmann::ordered_json Record() const;  // data.json
  const StageData& of(size_t stage) const { return stages_[stage]; }
  // What a stage trains on, as the key of what becomes of it.
  std::string Key(const StageRecipe& stage) const;

  // What the stage keeps of its layers, so that it fits the memory that is there. Throws
  // kOutOfMemory with what would fit.
  MemoryChoice FitMemory(const StageRecipe& stage, const StageData& data,
                         const TrainOptions& train) const;

 private:
  void ShowReading(const std::string& what, const ReadProgress& progress) const;
  void ShowAdapter() const;
  void ShowSettings(const StageRecipe& stage, const StageData& data) const;
  void ShowSources() const;
  void ShowUnknown(std::string_view key, std::string DataSource::* value) const;

  const Model& model_;
  const Recipe& recipe_;
  const TrainLayout& layout_;
  const BakeOptions& options_;
  ThreadPool& pool_;
  BakeObserver& observer_;
  ChatEncoder encode_chat_;
  std::vector<StageData> stages_;
};

}  // namespace bakestone
