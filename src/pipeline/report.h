// What a run leaves for people and programs to read: report.md with plots/STAGE.svg, and
// report.json.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "pipeline/bake.h"

namespace bakestone {

// What the general texts lost from before to after (without evaluation: while it trained), with the
// remedy; empty:
// nothing much.
std::vector<std::string> ForgettingWarnings(const BakeReport& report);

nlohmann::ordered_json BakeReportJson(const BakeReport& report);
std::string BakeReportMarkdown(const BakeReport& report, const Recipe& recipe);

// Writes all of it into the work folder.
void WriteReport(const BakeReport& report, const Recipe& recipe);

}  // namespace bakestone
