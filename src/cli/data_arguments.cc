#include "cli/data_arguments.h"

#include "base/error.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "data/row_source.h"

namespace bakestone::cli {
namespace {

// The method that fits the first row that can be read.
TrainMethod MethodFor(const DataSource& source) {
  RowOptions options;
  options.format = ParseRowFormat(source.format).value_or(RowFormat::kAuto);
  const auto rows = RowSource::Open(source.path);
  RawRow raw;
  while (rows->Next(&raw)) {
    const ParsedRow parsed = ParseRaw(raw, options);
    if (!parsed.row) continue;
    return parsed.row->kind == RowKind::kText ? TrainMethod::kPretrain : TrainMethod::kSft;
  }
  return TrainMethod::kPretrain;
}

ChosenSources OfRecipe(const DataArguments& arguments) {
  const Recipe recipe = ReadRecipe(arguments.what, HomeFolder() / "data");
  ChosenSources chosen{.sources = {}, .model = recipe.base, .recipe = recipe};
  const auto add = [&](const std::string& name, const StageRecipe& stage) {
    if (arguments.source && name != *arguments.source) return;
    for (const ChosenSource& known : chosen.sources) {
      if (known.source.name == name) return;
    }
    chosen.sources.push_back({recipe.Source(name), stage});
  };
  if (arguments.source) recipe.Source(*arguments.source);
  for (const StageRecipe& stage : recipe.stages) {
    for (const std::string& name : stage.data) add(name, stage);
    if (!stage.replay) continue;
    StageRecipe replay;
    replay.method = TrainMethod::kPretrain;
    replay.sequence_length = stage.replay->length;
    add(stage.replay->data, replay);
  }
  if (chosen.sources.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: no stage trains on '{}'", arguments.what,
          *arguments.source);
  }
  return chosen;
}

}  // namespace

void DataArguments::AddTo(Flags& flags) {
  flags.Positional("SOURCE", &what,
                   "A recipe (.toml): the sources that it trains on; or a data file");
  flags.Add("--source", &source, "Only this source of the recipe");
  flags.Add("--model", &model,
            "A GGUF file or a name in the home folder, instead of the recipe's base");
  flags.Add(
      "--format", &format,
      "How rows of the file are shaped (default: told from their fields): " + RowFormatNames());
}

ChosenSources Choose(const DataArguments& arguments) {
  ChosenSources chosen;
  if (arguments.what.ends_with(".toml")) {
    chosen = OfRecipe(arguments);
  } else {
    ChosenSource file;
    file.source.name = std::filesystem::path(arguments.what).filename().string();
    file.source.path = arguments.what;
    file.source.format = arguments.format.value_or("auto");
    file.source.personal_data = PersonalDataPolicy::kWarn;
    file.source.max_rejected = 1;
    if (!ParseRowFormat(file.source.format)) {
      throw UsageError("--format: expected one of " + RowFormatNames() + ", found '" +
                       file.source.format + "'");
    }
    file.stage.method = MethodFor(file.source);
    chosen.sources.push_back(std::move(file));
  }
  if (arguments.model) chosen.model = *arguments.model;
  return chosen;
}

}  // namespace bakestone::cli
