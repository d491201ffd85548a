// One source of a recipe: a file of texts, conversations or preferences, and what is to be done
// with it. Plain data; train/recipe_data.cc reads it from TOML, docs/recipes.md explains every key.
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace bakestone {

enum class DuplicatePolicy { kKeep, kExact, kNear };  // which rows are left out
enum class PersonalDataPolicy { kOff, kWarn, kMask };
enum class OverlongPolicy { kCut, kDrop };  // conversations beyond the longest sample

struct DataSource {
  std::string name;
  std::filesystem::path path;
  std::string licence;          // SPDX identifier or a hub's word; empty: unknown
  std::string source;           // where it is from, for the record; empty: unknown
  std::string format = "auto";  // row_format.h: how a row is shaped; auto: told from its fields
  std::string group = {};       // field of a row: rows of one group stay on one side of the split
  std::map<std::string, std::string> columns = {};  // field that formats know -> name in this file
  double heldout = 0;                               // share of the groups that is never trained on
  double weight = 1;                                // how often an epoch sees its samples
  DuplicatePolicy duplicates = DuplicatePolicy::kKeep;
  PersonalDataPolicy personal_data = PersonalDataPolicy::kOff;
  OverlongPolicy overlong = OverlongPolicy::kCut;
  double max_rejected = 0.01;  // share of the rows that may be unreadable
};

}  // namespace bakestone
