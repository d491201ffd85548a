// What a bake ends in: the table for people, and the same figures as JSON.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "pipeline/bake.h"

namespace bakestone::cli {

std::string BakeTable(const BakeReport& report, const std::string& model_path);
nlohmann::ordered_json BakeReportJson(const BakeReport& report);

}  // namespace bakestone::cli
