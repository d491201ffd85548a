// What bench measured, as JSON (which --compare reads again) and as lines for people.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/speed.h"

namespace bakestone::cli {

// Throughput, time to the first word ("s") or memory ("bytes").
struct BenchRow {
  std::string name, unit;
  Spread value;
  double limit = 0, bandwidth_share = 0, integer_share = 0;  // 0: does not apply
};
BenchRow RowOf(const SpeedFigure& figure);

// Medians of an earlier --json by name. Throws kCorrupt naming the file and the field.
struct EarlierBench {
  nlohmann::ordered_json setting;  // model, threads, isa: to say what differs
  std::map<std::string, double> medians;
};
EarlierBench ReadEarlier(const std::filesystem::path& path);

nlohmann::ordered_json ToJson(const BenchRow& row);
nlohmann::ordered_json ToJson(const ShapeFigure& shape);
nlohmann::ordered_json ToJson(const MachineLimits& limits);

void PrintHeading(bool compared);
// earlier: null where nothing is compared. A ratio above 1 is better, whatever the unit.
void Print(const BenchRow& row, const EarlierBench* earlier);
void Print(const std::vector<ShapeFigure>& shapes);

}  // namespace bakestone::cli
