#include "train/source_summary.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

std::string ListOf(const std::map<std::string, int64_t>& counts) {
  std::string list;
  for (const auto& [name, count] : counts) {
    list += fmt::format("{}{} {}", list.empty() ? "" : ", ", count, name);
  }
  return list;
}

std::string NamesOf(const std::map<std::string, int64_t>& counts) {
  std::string list;
  for (const auto& [name, count] : counts) list += (list.empty() ? "" : " and ") + name;
  return list;
}

}  // namespace

std::string SourceSummary::Line() const {
  const bool plain = container.starts_with("text") || container.starts_with("Markdown");
  const std::string shape =
      plain ? "" : fmt::format(", {}{}", NamesOf(formats), format == "auto" ? " (detected)" : "");
  std::string line = fmt::format("{}: {}{}: {} row{}, {} learned", name, container, shape, rows,
                                 rows == 1 ? "" : "s", learned);
  const auto add = [&](int64_t count, const char* what) {
    if (count > 0) line += fmt::format(", {} {}", count, what);
  };
  add(heldout, "held out");
  add(exact_duplicates, "left out as duplicates");
  add(near_duplicates, "left out as near duplicates");
  add(overlong, "left out as too long");
  add(unlearned, "with nothing to learn");
  add(rejected, "rejected");
  if (masked && personal_rows > 0) line += fmt::format(", masked: {}", ListOf(personal));
  return line;
}

std::vector<std::string> SourceSummary::Warnings() const {
  std::vector<std::string> warnings;
  const std::string file = rejects.empty() ? "" : "; see " + rejects.string();
  if (rejected > 0) {
    warnings.push_back(fmt::format("{}: {} of {} rows cannot be used ({}){}", name, rejected, rows,
                                   first_reject, file));
  } else if (unlearned + overlong > 0) {
    warnings.push_back(
        fmt::format("{}: {} of {} rows are not used{}", name, unlearned + overlong, rows, file));
  }
  if (!masked && personal_rows > 0) {
    warnings.push_back(
        fmt::format("{}: personal data in {} rows ({}); look with 'bakestone data check', mask "
                    "with pii = \"mask\"",
                    name, personal_rows, ListOf(personal)));
  }
  return warnings;
}

Json ToJson(const SourceSummary& summary) {
  return {{"name", summary.name},
          {"container", summary.container},
          {"unit", summary.unit},
          {"formats", summary.formats},
          {"format", summary.format},
          {"rows", summary.rows},
          {"learned", summary.learned},
          {"heldout", summary.heldout},
          {"rejected", summary.rejected},
          {"unlearned", summary.unlearned},
          {"overlong", summary.overlong},
          {"exact_duplicates", summary.exact_duplicates},
          {"near_duplicates", summary.near_duplicates},
          {"personal_rows", summary.personal_rows},
          {"personal", summary.personal},
          {"masked", summary.masked}};
}

std::string NoteOf(const SourceSummary& summary, const DatasetCounts& counts) {
  return Json{
      {"summary", ToJson(summary)},
      {"counts", {{"tokens", counts.tokens}, {"trained", counts.trained}, {"cut", counts.cut}}}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool ReadNote(std::string_view note, SourceSummary* summary, DatasetCounts* counts) {
  const Json json = Json::parse(note, nullptr, false);
  try {
    const Json& from = json.at("summary");
    *summary = {};
    summary->name = from.at("name");
    summary->container = from.at("container");
    summary->unit = from.at("unit");
    summary->formats = from.at("formats").get<std::map<std::string, int64_t>>();
    summary->format = from.at("format");
    summary->rows = from.at("rows");
    summary->learned = from.at("learned");
    summary->heldout = from.at("heldout");
    summary->rejected = from.at("rejected");
    summary->unlearned = from.at("unlearned");
    summary->overlong = from.at("overlong");
    summary->exact_duplicates = from.at("exact_duplicates");
    summary->near_duplicates = from.at("near_duplicates");
    summary->personal_rows = from.at("personal_rows");
    summary->personal = from.at("personal").get<std::map<std::string, int64_t>>();
    summary->masked = from.at("masked");
    counts->tokens = json.at("counts").at("tokens");
    counts->trained = json.at("counts").at("trained");
    counts->cut = json.at("counts").at("cut");
  } catch (const Json::exception&) {
    return false;
  }
  return true;
}

}  // namespace bakestone
