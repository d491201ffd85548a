#include "pipeline/report.h"

#include <algorithm>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "pipeline/step_history.h"
#include "train/text_watch.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

double ChangeOf(const ScoredText& before, const ScoredText& after) {
  return after.score.BitsPerByte() / before.score.BitsPerByte() - 1;
}

// A cell of a table must not end it.
std::string Cell(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  for (size_t at = text.find('|'); at != std::string::npos; at = text.find('|', at + 2)) {
    text.insert(at, "\\");
  }
  return text;
}

std::string QuestionTable(const Evaluation& before, const Evaluation& after) {
  static constexpr const char* kLabels[] = {"direct", "situational", "letters filed",
                                            "unanswerable, declined"};
  std::string table =
      "| questions | asked | base right | tuned right |\n| --- | --- | --- | --- |\n";
  for (int i = 0; i < kNumQuestionKinds; ++i) {
    const auto kind = static_cast<QuestionKind>(i);
    const KindTally a = after.Tally(kind), b = before.Tally(kind);
    if (a.asked == 0) continue;
    table += fmt::format("| {} | {} | {:.0f} % | {:.0f} % |\n", kLabels[i], a.asked,
                         b.Share() * 100, a.Share() * 100);
  }
  return table;
}

std::string TextTable(const Evaluation& before, const Evaluation& after) {
  std::string table = "| text | base, bits a byte | tuned | change |\n| --- | --- | --- | --- |\n";
  for (size_t i = 0; i < after.texts.size() && i < before.texts.size(); ++i) {
    const ScoredText &a = after.texts[i], &b = before.texts[i];
    table += fmt::format("| {} ({}) | {:.3f} | {:.3f} | {:+.1f} % |\n", Cell(a.name),
                         a.general ? "general" : "domain", b.score.BitsPerByte(),
                         a.score.BitsPerByte(), ChangeOf(b, a) * 100);
  }
  return table;
}

std::string StageTable(const BakeReport& report) {
  std::string table =
      "| stage | method | steps | tokens | tokens/s | held-out loss or answers |\n| --- | --- | "
      "--- | --- | "
      "--- | --- |\n";
  for (const TrainedStage& stage : report.trained) {
    std::string heldout = "not measured";
    if (stage.best_answers >= 0) {
      heldout = fmt::format("{:.1f} % of the answers after step {}", stage.best_answers * 100,
                            stage.best_step);
    } else if (stage.best_step >= 0) {
      heldout = fmt::format("{:.4f} after step {}", stage.best_loss, stage.best_step);
    }
    table += fmt::format("| {} | {} | {}{} | {} | {:.0f} | {} |\n", Cell(stage.name), stage.method,
                         stage.steps, stage.stopped_early ? " (stopped early)" : "", stage.tokens,
                         stage.seconds > 0 ? static_cast<double>(stage.tokens) / stage.seconds : 0,
                         heldout);
  }
  return table;
}

// The texts that were scored while it trained; empty without any.
std::string WatchTable(const BakeReport& report) {
  std::string rows;
  for (const TrainedStage& stage : report.trained) {
    for (const TextHistory& text : stage.texts) {
      rows += fmt::format("| {} | {} ({}) | {:.3f} | {:.3f} | {:.3f} | {:.3f} | {:+.1f} % | {} |\n",
                          Cell(stage.name), Cell(text.name), text.general() ? "general" : "domain",
                          text.base, text.bits_per_byte.front(),
                          *std::max_element(text.bits_per_byte.begin(), text.bits_per_byte.end()),
                          text.bits_per_byte.back(), text.Change() * 100,
                          text.general() ? fmt::format("{:.4f}", text.kl.back()) : "");
    }
  }
  if (rows.empty()) return rows;
  return "\nScored while it trained, on a slice of each text, in bits a byte:\n\n"
         "| stage | text | base | at the start | highest | at the end | against the base | KL to "
         "the base, nats a token |\n"
         "| --- | --- | --- | --- | --- | --- | --- | --- |\n" +
         rows;
}

// Of a run that was not evaluated before and after: what the last stage's watched texts say.
std::vector<std::string> WatchedWarnings(const BakeReport& report) {
  std::vector<std::string> warnings;
  if (report.trained.empty()) return warnings;
  for (const TextHistory& text : report.trained.back().texts) {
    if (!text.general() || text.Change() <= kForgotten) continue;
    warnings.push_back(fmt::format(
        "the model forgot: general text '{}' costs {:.1f} % more bits than the base's; {}",
        text.name, text.Change() * 100, kForgettingRemedy));
  }
  return warnings;
}

std::string DataTable(const Recipe& recipe) {
  std::string table = "| data | source | licence |\n| --- | --- | --- |\n";
  const auto known = [](const std::string& text) { return text.empty() ? "unknown" : Cell(text); };
  for (const auto& [name, source] : recipe.data) {
    table +=
        fmt::format("| {} | {} | {} |\n", Cell(name), known(source.source), known(source.licence));
  }
  return table;
}

std::string PlotName(const std::string& stage) { return "plots/" + stage + ".svg"; }

}  // namespace

std::vector<std::string> ForgettingWarnings(const BakeReport& report) {
  std::vector<std::string> warnings;
  if (!report.before || !report.after) return WatchedWarnings(report);
  for (size_t i = 0; i < report.after->texts.size() && i < report.before->texts.size(); ++i) {
    const ScoredText& after = report.after->texts[i];
    const double change = ChangeOf(report.before->texts[i], after);
    if (!after.general || change <= kForgotten) continue;
    warnings.push_back(
        fmt::format("the model forgot: general text '{}' costs {:.1f} % more bits than before; {}",
                    after.name, change * 100, kForgettingRemedy));
  }
  return warnings;
}

Json BakeReportJson(const BakeReport& report) {
  Json json = {
      {"name", report.name},
      {"base", report.base},
      {"recipe", report.recipe},
      {"folder", report.folder.string()},
      {"licence", report.licence.licence.id},
      {"licence_warnings", report.licence.warnings},
      {"train_tokens", report.train_tokens},
      {"train_seconds", report.train_seconds},
      {"seconds", report.seconds},
      {"joules", report.joules},
      {"joules_measured", report.joules_measured},
      {"peak_bytes", report.peak_bytes},
      {"base_bytes", report.base_bytes},
      {"result", report.result.string()},
      {"result_bytes", report.result_bytes},
      {"stages", report.stages},
      {"reused_stages", report.reused_stages},
      {"served_question", report.served_question},
      {"served_answer", report.served_answer},
      {"warnings", ForgettingWarnings(report)},
  };
  json["train"] = Json::array();
  for (const TrainedStage& stage : report.trained) {
    json["train"].push_back({{"stage", stage.name},
                             {"method", stage.method},
                             {"steps", stage.steps},
                             {"tokens", stage.tokens},
                             {"seconds", stage.seconds},
                             {"best_step", stage.best_step},
                             {"best_loss", stage.best_loss},
                             {"best_answers", stage.best_answers},
                             {"stopped_early", stage.stopped_early},
                             {"texts", ToJson(stage.texts)}});
  }
  if (report.before) json["before"] = ToJson(*report.before);
  if (report.after) json["after"] = ToJson(*report.after);
  return json;
}

std::string BakeReportMarkdown(const BakeReport& report, const Recipe& recipe) {
  std::string text = fmt::format(
      "# {} on {}\n\nRecipe `{}`, seed {}, kind `{}`. Result: `{}`, {:.1f} MB.\n", report.name,
      report.base, report.recipe, recipe.seed, AdapterKindName(recipe.lora.kind),
      report.result.filename().string(), static_cast<double>(report.result_bytes) * 1e-6);
  for (const std::string& warning : ForgettingWarnings(report)) {
    text += "\n**Warning:** " + warning + "\n";
  }
  if (report.before && report.after) {
    text += "\n## What was gained, what was forgotten\n\n";
    if (!report.after->answers.empty()) text += QuestionTable(*report.before, *report.after) + "\n";
    if (!report.after->texts.empty()) text += TextTable(*report.before, *report.after);
  }
  text += "\n## Training\n\n" + StageTable(report) + WatchTable(report);
  for (const TrainedStage& stage : report.trained) {
    text += fmt::format("\n![{} over the steps]({})\n", Cell(stage.name), PlotName(stage.name));
  }
  text += "\n## Data and licence\n\n" + DataTable(recipe);
  text += fmt::format("\nLicence of the result: {} ({}).\n", report.licence.licence.id,
                      LicenceKindName(report.licence.licence.kind));
  for (const std::string& line : report.licence.obligations) text += "\n* " + line;
  for (const std::string& line : report.licence.warnings) text += "\n* Warning: " + line;
  text += fmt::format(
      "\n\nWhat was read and how is in `data.json`, every stage with the hashes of its files in "
      "`lineage.json`, all figures in `report.json`.\n");
  return text;
}

void WriteReport(const BakeReport& report, const Recipe& recipe) {
  for (const TrainedStage& stage : report.trained) {
    WriteFileAtomically(
        report.folder / PlotName(stage.name),
        PlotOf(stage.name, ReadStepHistory(report.folder / ("train-" + stage.name) / "log.jsonl")));
  }
  WriteFileAtomically(report.folder / "report.md", BakeReportMarkdown(report, recipe));
  WriteFileAtomically(
      report.folder / "report.json",
      BakeReportJson(report).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace bakestone
