#include "pipeline/lineage.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json_depth.h"
#include "base/sha256.h"

namespace bakestone {

using Json = nlohmann::ordered_json;

std::string HashOfParts(std::initializer_list<std::string_view> parts) {
  Sha256 sha;
  for (const std::string_view part : parts) sha.Update(part).Update(std::string_view("\0", 1));
  return ToHex(sha.Finish());
}

Lineage::Lineage(std::filesystem::path folder) : folder_(std::move(folder)) {
  const auto path = folder_ / "lineage.json";
  if (!std::filesystem::exists(path)) return;
  const std::string text = ReadFile(path);
  CheckJsonLevels(text, path.string());
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) {
    Throw(ErrorCode::kCorrupt,
          "{}: expected the record of earlier runs, found what is no JSON object; delete it to do "
          "all stages again",
          path.string());
  }
  try {
    for (const auto& [key, value] : json.items()) {
      if (key != "version" && key != "stages") notes_[key] = value.dump();
    }
    for (const auto& [name, stage] : json.at("stages").items()) {
      StageRecord record;
      record.key = stage.at("key");
      record.files = stage.at("files").get<std::map<std::string, std::string>>();
      record.seconds = stage.at("seconds");
      record.joules = stage.at("joules");
      record.joules_measured = stage.at("joules_measured");
      record.peak_bytes = stage.at("peak_bytes");
      stages_[name] = std::move(record);
    }
  } catch (const nlohmann::json::exception& error) {
    Throw(ErrorCode::kCorrupt,
          "{}: expected the record of earlier runs: {}; delete it to do all "
          "stages again",
          path.string(), error.what());
  }
}

bool Lineage::Done(const std::string& stage, const std::string& key) const {
  const StageRecord* record = Find(stage);
  if (record == nullptr || record->key != key) return false;
  for (const auto& [file, hash] : record->files) {
    if (!std::filesystem::is_regular_file(folder_ / file)) return false;
    if (ToHex(HashOfFile(folder_ / file)) != hash) return false;
  }
  return true;
}

const StageRecord* Lineage::Find(const std::string& stage) const {
  const auto found = stages_.find(stage);
  return found == stages_.end() ? nullptr : &found->second;
}

void Lineage::Record(const std::string& stage, const std::string& key,
                     const std::vector<std::string>& files, StageRecord record) {
  record.key = key;
  for (const std::string& file : files) record.files[file] = ToHex(HashOfFile(folder_ / file));
  stages_[stage] = std::move(record);
  Write();
}

void Lineage::Forget(const std::string& stage) {
  if (stages_.erase(stage) > 0) Write();
}

void Lineage::Describe(const std::string& key, const Json& value) {
  std::string text = value.dump();
  if (notes_[key] == text) return;
  notes_[key] = std::move(text);
  Write();
}

void Lineage::Write() const {
  Json json = {{"version", 1}};
  for (const auto& [key, value] : notes_) json[key] = Json::parse(value);
  json["stages"] = Json::object();
  for (const auto& [name, record] : stages_) {
    json["stages"][name] = {{"key", record.key},
                            {"files", record.files},
                            {"seconds", record.seconds},
                            {"joules", record.joules},
                            {"joules_measured", record.joules_measured},
                            {"peak_bytes", record.peak_bytes}};
  }
  WriteFileAtomically(folder_ / "lineage.json", json.dump(2) + "\n");
}

}  // namespace bakestone
