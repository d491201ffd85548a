// What is learned, for the record: where each source comes from, how it was read, and the part of a
// stage's key that follows from it.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/data_source.h"
#include "train/recipe.h"
#include "train/trainer.h"

namespace bakestone {

// How a source is read, as far as it says more than its path.
std::string ReadingKey(const DataSource& source);
// The same with its name and the hash of its contents.
std::string SourceKey(const DataSource& source);

// Sources that any stage trains on, sorted, each once.
std::vector<std::string> TrainedSources(const Recipe& recipe);

nlohmann::ordered_json DataRecord(const Recipe& recipe, const std::vector<StageData>& stages);

}  // namespace bakestone
