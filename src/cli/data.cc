// bakestone data ACTION: looks at what is to be learned, before anything is.
#include <cstdio>
#include <memory>

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/data_actions.h"
#include "cli/data_arguments.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "data/check.h"
#include "engine/chat.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string Fact(std::string_view label, const std::string& text) {
  return fmt::format("  {:<18} {}\n", label, text);
}

std::string LengthLine(const Lengths& lengths) {
  return fmt::format("{} in all; shortest {}, 5 % {}, median {}, 95 % {}, longest {}", lengths.sum,
                     lengths.least, lengths.p5, lengths.median, lengths.p95, lengths.most);
}

std::string ExampleLines(const std::vector<Example>& examples, const std::string& unit) {
  std::string lines;
  for (const Example& example : examples) {
    lines += fmt::format("  {:<18} {} {}: {}\n", "", unit, example.line, example.text);
  }
  return lines;
}

std::string Report(const std::string& name, const SourceReport& report) {
  std::vector<std::string> formats;
  for (const auto& [format, rows] : report.formats) {
    formats.push_back(fmt::format("{} ({})", format, rows));
  }
  std::string text = fmt::format("{}\n", name);
  text += Fact("format", fmt::format("{}{}{}", report.container, formats.empty() ? "" : ": ",
                                     fmt::join(formats, ", ")));
  text += Fact("rows", fmt::format("{}, {} of them cannot be read", report.rows, report.rejected));
  text += ExampleLines(report.rejects, report.unit);
  text += Fact("characters", LengthLine(report.characters));
  if (report.tokens.sum > 0) text += Fact("tokens", LengthLine(report.tokens));
  text += Fact("duplicates",
               fmt::format("{} exact, {} near (dedupe = \"exact\" or \"near\" leaves them out)",
                           report.exact_duplicates, report.near_duplicates));
  text += ExampleLines(report.duplicate_examples, report.unit + " like " + report.unit);
  if (report.heldout_rows > 0) {
    text += Fact("held out", fmt::format("{} rows of {} groups; largest group {} rows",
                                         report.heldout_rows, report.groups, report.largest_group));
  }
  text += Fact("personal data",
               fmt::format("in {} rows (pii = \"mask\" hides it)", report.personal_rows));
  for (size_t kind = 0; kind < report.personal.size(); ++kind) {
    if (report.personal[kind] == 0) continue;
    text += Fact("", fmt::format("{} {}", report.personal[kind],
                                 PersonalKindName(static_cast<PersonalKind>(kind))));
  }
  text += ExampleLines(report.personal_examples, report.unit);
  for (size_t sign = 0; sign < report.signs.size(); ++sign) {
    if (report.signs[sign] == 0) continue;
    text += Fact(
        "quality",
        fmt::format("{}: {} rows, first in {} {}", QualitySignName(static_cast<QualitySign>(sign)),
                    report.signs[sign], report.unit, fmt::join(report.sign_lines[sign], ", ")));
  }
  return text;
}

// Tokens as the model counts them; of conversations as its template writes them.
int64_t CountTokens(const Model& model, const Row& row) {
  try {
    if (row.kind == RowKind::kText) {
      return static_cast<int64_t>(model.tokenizer.Encode(row.text, {.add_special = false}).size());
    }
    return static_cast<int64_t>(
        RenderChat(model, *row.chat.messages, false, row.tools.get()).tokens.size());
  } catch (const std::exception&) {
    return 0;  // a row that the template refuses: `data show` and training say so
  }
}

int Check(const Arguments& arguments) {
  DataArguments what;
  std::optional<int64_t> threads;
  bool json = false;
  Flags flags("data check",
              "What is in a data file: format, lengths, duplicates, personal data, quality, rows "
              "that cannot be read.",
              "bakestone data check my-handbook/bake.toml");
  what.AddTo(flags);
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  flags.Add("--json", &json, "Print one JSON object");
  flags.Parse(arguments);
  const ChosenSources chosen = Choose(what);
  ThreadPool pool(NumThreads(threads));
  std::shared_ptr<const Model> model;
  if (!chosen.model.empty()) {
    model = Model::Load(ResolveModel(chosen.model), Kernels(), pool, Loading(false));
  }
  Json reports = Json::object();
  std::vector<std::string> useless;
  for (const ChosenSource& one : chosen.sources) {
    std::unique_ptr<Progress> bar;
    CheckOptions options{.pool = &pool, .count_tokens = {}, .progress = {}};
    options.progress = [&](const ReadProgress& progress) {
      constexpr int64_t kShown = int64_t{4} << 20;  // what is smaller is soon done
      if (progress.file_bytes < kShown) return;
      if (!bar) {
        bar = std::make_unique<Progress>("checking " + one.source.name, progress.file_bytes >> 10,
                                         "KiB");
      }
      bar->Update(progress.bytes >> 10, fmt::format("{} rows", progress.rows));
    };
    if (model) options.count_tokens = [&](const Row& row) { return CountTokens(*model, row); };
    const SourceReport report = CheckSource(one.source, options);
    bar.reset();
    if (report.rows == report.rejected) useless.push_back(one.source.name);
    if (json) {
      reports[one.source.name] = ToJson(report);
    } else {
      fmt::print("{}", Report(one.source.name, report));
    }
  }
  if (json) fmt::print("{}\n", reports.dump(2, ' ', false, Json::error_handler_t::replace));
  if (!useless.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "expected rows to learn from, found none that can be read: {}", fmt::join(useless, ", "));
  }
  return 0;
}

}  // namespace

int Data(const Arguments& arguments) {
  static constexpr const char* kHelp =
      "Looks at what is to be learned, before anything is.\n\n"
      "Usage: bakestone data ACTION SOURCE [OPTIONS]\n\n"
      "Actions:\n"
      "  check      format, lengths, duplicates, personal data, quality, rows that cannot be read\n"
      "  show       rows as the model's template writes them, with what is learned marked\n"
      "  make       a local model writes question-answer pairs from documents, for review\n\n"
      "'bakestone data ACTION --help' explains an action.\n\n"
      "Example:\n  bakestone data check my-handbook/bake.toml\n";
  if (arguments.empty()) throw UsageError("data: expected an action: check, show or make");
  if (arguments[0] == "--help" || arguments[0] == "-h") throw HelpRequested(kHelp);
  const Arguments rest(arguments.begin() + 1, arguments.end());
  if (arguments[0] == "check") return Check(rest);
  if (arguments[0] == "show") return DataShow(rest);
  if (arguments[0] == "make") return DataMake(rest);
  throw UsageError(
      fmt::format("data: expected an action, check, show or make; found '{}'", arguments[0]));
}

}  // namespace bakestone::cli
