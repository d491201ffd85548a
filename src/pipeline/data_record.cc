#include "pipeline/data_record.h"

#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/sha256.h"

namespace bakestone {

using Json = nlohmann::ordered_json;

std::string ReadingKey(const DataSource& source) {
  std::string key;
  if (source.format != "auto") key += "|format " + source.format;
  if (!source.group.empty()) key += "|group " + source.group;
  for (const auto& [field, column] : source.columns) key += "|column " + field + "=" + column;
  if (source.heldout > 0) key += fmt::format("|heldout {}", source.heldout);
  if (source.weight != 1) key += fmt::format("|weight {}", source.weight);
  if (source.duplicates != DuplicatePolicy::kKeep) {
    key += fmt::format("|dedupe {}", static_cast<int>(source.duplicates));
  }
  if (source.personal_data == PersonalDataPolicy::kMask) key += "|mask";
  if (source.overlong == OverlongPolicy::kDrop) key += "|drop";
  return key;
}

std::string SourceKey(const DataSource& source) {
  return "|" + source.name + "|" + ToHex(HashOfFile(source.path)) + ReadingKey(source);
}

std::vector<std::string> TrainedSources(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const StageRecipe& stage : recipe.stages) {
    names.insert(names.end(), stage.data.begin(), stage.data.end());
    if (stage.replay) names.push_back(stage.replay->data);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Json DataRecord(const Recipe& recipe, const std::vector<StageData>& stages) {
  Json record = Json::array();
  const auto known = [](const std::string& text) { return text.empty() ? "unknown" : text; };
  for (const std::string& name : TrainedSources(recipe)) {
    const DataSource& source = recipe.Source(name);
    Json entry = {{"name", name},
                  {"path", source.path.string()},
                  {"sha256", ToHex(HashOfFile(source.path))},
                  {"source", known(source.source)},
                  {"licence", known(source.licence)},
                  {"readings", Json::array()}};
    for (const StageData& data : stages) {
      for (const SourceSummary& summary : data.sources) {
        if (summary.name == name) entry["readings"].push_back(ToJson(summary));
      }
    }
    record.push_back(std::move(entry));
  }
  return record;
}

}  // namespace bakestone
