#include "pipeline/report.h"

#include <fstream>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "pipeline/svg_plot.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kForgotten = 0.05;  // bits a byte more than before

double ChangeOf(const ScoredText& before, const ScoredText& after) {
  return after.score.BitsPerByte() / before.score.BitsPerByte() - 1;
}

// A cell of a table must not end it.
std::string Cell(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  for (size_t at = text.find('|'); at != std::string::npos; at = text.find('|', at + 2)) text.insert(at, "\\");
  return text;
}

std::string QuestionTable(const Evaluation& before, const Evaluation& after) {
  static constexpr const char* kLabels[] = {"direct", "situational", "letters filed", "unanswerable, declined"};
  std::string table = "| questions | asked | base right | tuned right |\n| --- | --- | --- | --- |\n";
  for (int i = 0; i < kNumQuestionKinds; ++i) {
    const auto kind = static_cast<QuestionKind>(i);
    const KindTally a = after.Tally(kind), b = before.Tally(kind);
    if (a.asked == 0) continue;
    table += fmt::format("| {} | {} | {:.0f} % | {:.0f} % |\n", kLabels[i], a.asked, b.Share() * 100, a.Share() * 100);
  }
  return table;
}

std::string TextTable(const Evaluation& before, const Evaluation& after) {
  std::string table = "| text | base, bits a byte | tuned | change |\n| --- | --- | --- | --- |\n";
  for (size_t i = 0; i < after.texts.size() && i < before.texts.size(); ++i) {
    const ScoredText &a = after.texts[i], &b = before.texts[i];
    table += fmt::format("| {} ({}) | {:.3f} | {:.3f} | {:+.1f} % |\n", Cell(a.name), a.general ? "general" : "domain",
                         b.score.BitsPerByte(), a.score.BitsPerByte(), ChangeOf(b, a) * 100);
  }
  return table;
}

std::string StageTable(const BakeReport& report) {
  std::string table = "| stage | method | steps | tokens | tokens/s | held-out loss |\n| --- | --- | --- | --- | --- | --- |\n";
  for (const TrainedStage& stage : report.trained) {
    const std::string heldout =
        stage.best_step < 0 ? "not measured" : fmt::format("{:.4f} after step {}", stage.best_loss, stage.best_step);
    table += fmt::format("| {} | {} | {}{} | {} | {:.0f} | {} |\n", Cell(stage.name), stage.method, stage.steps,
                         stage.stopped_early ? " (stopped early)" : "", stage.tokens,
                         stage.seconds > 0 ? static_cast<double>(stage.tokens) / stage.seconds : 0, heldout);
  }
  return table;
}

std::string DataTable(const Recipe& recipe) {
  std::string table = "| data | source | licence |\n| --- | --- | --- |\n";
  const auto known = [](const std::string& text) { return text.empty() ? "unknown" : Cell(text); };
  for (const auto& [name, source] : recipe.data) {
    table += fmt::format("| {} | {} | {} |\n", Cell(name), known(source.source), known(source.licence));
  }
  return table;
}

std::string PlotName(const std::string& stage) { return "plots/" + stage + ".svg"; }

}  // namespace

StepHistory ReadStepHistory(const std::filesystem::path& log) {
  StepHistory history;
  std::ifstream file(log);
  double tokens = 0, seconds = 0;
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    const auto number = [&](const char* key) {
      return json.contains(key) && json[key].is_number() ? json[key].get<double>() : 0.0;
    };
    history.step.push_back(number("step"));
    history.loss.push_back(number("loss"));
    history.replay_loss.push_back(number("replay_loss"));
    history.learning_rate.push_back(number("learning_rate"));
    history.gradient_norm.push_back(number("gradient_norm"));
    const double spent = number("seconds") - seconds;
    history.tokens_per_second.push_back(spent > 0 ? (number("tokens") - tokens) / spent : 0);
    tokens = number("tokens");
    seconds = number("seconds");
    if (!json.contains("heldout_loss")) continue;
    history.heldout_step.push_back(history.step.back());
    history.heldout_loss.push_back(number("heldout_loss"));
  }
  return history;
}

std::string PlotOf(const std::string& stage, const StepHistory& history) {
  PlotPanel loss{"loss", {{"training", history.step, history.loss}}};
  if (!history.heldout_loss.empty()) loss.series.push_back({"held out", history.heldout_step, history.heldout_loss});
  std::vector<PlotPanel> panels = {loss};
  for (const double value : history.replay_loss) {
    if (value == 0) continue;
    panels.push_back({"replay: loss, or KL to the base", {{"", history.step, history.replay_loss}}, true});
    break;
  }
  panels.push_back({"learning rate", {{"", history.step, history.learning_rate}}, true});
  panels.push_back({"gradient norm", {{"", history.step, history.gradient_norm}}, true});
  panels.push_back({"tokens a second", {{"", history.step, history.tokens_per_second}}, true});
  return SvgPlot("stage " + stage, panels);
}

std::vector<std::string> ForgettingWarnings(const BakeReport& report) {
  std::vector<std::string> warnings;
  if (!report.before || !report.after) return warnings;
  for (size_t i = 0; i < report.after->texts.size() && i < report.before->texts.size(); ++i) {
    const ScoredText& after = report.after->texts[i];
    const double change = ChangeOf(report.before->texts[i], after);
    if (!after.general || change <= kForgotten) continue;
    warnings.push_back(fmt::format(
        "the model forgot: general text '{}' costs {:.1f} % more bits than before; replay general text beside your own "
        "([stage.replay] with share 0.2 and kl_weight 1 to 4), or lower 'learning_rate' or 'epochs'", after.name,
        change * 100));
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
                             {"stopped_early", stage.stopped_early}});
  }
  if (report.before) json["before"] = ToJson(*report.before);
  if (report.after) json["after"] = ToJson(*report.after);
  return json;
}

std::string BakeReportMarkdown(const BakeReport& report, const Recipe& recipe) {
  std::string text = fmt::format("# {} on {}\n\nRecipe `{}`, seed {}, kind `{}`. Result: `{}`, {:.1f} MB.\n", report.name,
                                 report.base, report.recipe, recipe.seed, AdapterKindName(recipe.lora.kind),
                                 report.result.filename().string(), static_cast<double>(report.result_bytes) * 1e-6);
  for (const std::string& warning : ForgettingWarnings(report)) text += "\n**Warning:** " + warning + "\n";
  if (report.before && report.after) {
    text += "\n## What was gained, what was forgotten\n\n";
    if (!report.after->answers.empty()) text += QuestionTable(*report.before, *report.after) + "\n";
    if (!report.after->texts.empty()) text += TextTable(*report.before, *report.after);
  }
  text += "\n## Training\n\n" + StageTable(report);
  for (const TrainedStage& stage : report.trained) {
    text += fmt::format("\n![{} over the steps]({})\n", Cell(stage.name), PlotName(stage.name));
  }
  text += "\n## Data and licence\n\n" + DataTable(recipe);
  text += fmt::format("\nLicence of the result: {} ({}).\n", report.licence.licence.id,
                      LicenceKindName(report.licence.licence.kind));
  for (const std::string& line : report.licence.obligations) text += "\n* " + line;
  for (const std::string& line : report.licence.warnings) text += "\n* Warning: " + line;
  text += fmt::format("\n\nWhat was read and how is in `data.json`, every stage with the hashes of its files in "
                      "`lineage.json`, all figures in `report.json`.\n");
  return text;
}

void WriteReport(const BakeReport& report, const Recipe& recipe) {
  for (const TrainedStage& stage : report.trained) {
    WriteFileAtomically(report.folder / PlotName(stage.name),
                        PlotOf(stage.name, ReadStepHistory(report.folder / ("train-" + stage.name) / "log.jsonl")));
  }
  WriteFileAtomically(report.folder / "report.md", BakeReportMarkdown(report, recipe));
  WriteFileAtomically(report.folder / "report.json",
                      BakeReportJson(report).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace bakestone
