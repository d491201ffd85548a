// What was done, from what, by whom, with which outcome: for people who want to know where a result
// is from, and the record by which a second run does only what is missing. One JSON file in the
// work folder; a stage is done when its key (a hash of everything that it depends on) stands there
// and its files still have the hashes that were written down.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace bakestone {

// A key of everything that is named: its SHA-256, as hexadecimal digits.
std::string HashOfParts(std::initializer_list<std::string_view> parts);

struct StageRecord {
  std::string key;
  std::map<std::string, std::string> files;  // relative to the work folder -> SHA-256
  double seconds = 0;
  double joules = 0;
  bool joules_measured = false;
  int64_t peak_bytes = 0;
};

class Lineage {
 public:
  // Reads folder/lineage.json if it is there. Throws kCorrupt naming it.
  explicit Lineage(std::filesystem::path folder);

  const std::filesystem::path& folder() const { return folder_; }
  // True if the stage was done with this key and its files are what they were.
  bool Done(const std::string& stage, const std::string& key) const;
  const StageRecord* Find(const std::string& stage) const;
  // Hashes the files (relative to the folder), then writes the record; whole or not at all.
  void Record(const std::string& stage, const std::string& key,
              const std::vector<std::string>& files, StageRecord record);
  void Forget(const std::string& stage);
  // Notes what a run is made from (base, recipe, seed, program) or ended with, beside the stages.
  void Describe(const std::string& key, const nlohmann::ordered_json& value);

 private:
  void Write() const;

  std::filesystem::path folder_;
  std::map<std::string, StageRecord> stages_;
  std::map<std::string, std::string> notes_;  // JSON
};

}  // namespace bakestone
