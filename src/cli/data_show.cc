// bakestone data show: rows as the model's template writes them, with what is learned marked.
#include <unistd.h>

#include <cstdio>
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/temporary_folder.h"
#include "cli/data_actions.h"
#include "cli/data_arguments.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "engine/chat.h"
#include "pipeline/grown_base.h"
#include "train/dataset.h"
#include "train/stage_reading.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Run {
  std::string text;
  bool trained = false;
};

// The sample's text, cut where learned and not learned tokens meet.
std::vector<Run> RunsOf(const Tokenizer& tokenizer, const SampleView& sample) {
  std::vector<Run> runs;
  for (size_t begin = 0; begin < sample.tokens.size();) {
    size_t end = begin;
    while (end < sample.tokens.size() && sample.trained[end] == sample.trained[begin]) ++end;
    runs.push_back({tokenizer.Decode(sample.tokens.subspan(begin, end - begin),
                                     {.render_special = true, .strip_space_prefix = begin == 0}),
                    sample.trained[begin] != 0});
    begin = end;
  }
  return runs;
}

// A terminal must not obey what a file says.
std::string Printable(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t') {
      safe += c;
    } else {
      safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return safe;
}

class Shower {
 public:
  Shower(const Model& model, bool json)
      : model_(model), json_(json), colours_(::isatty(STDOUT_FILENO) == 1) {}

  void Show(const Dataset& data, const SourceSummary& summary, int64_t first, int64_t rows) {
    int64_t row = 0, shown = 0;
    for (int64_t unit = 0; unit < data.size(); ++unit) {
      for (int64_t which = 0; which < data.unit(); ++which) {
        const SampleView sample = data.At(unit, which);
        if (sample.row < first) continue;
        if (sample.row != row && ++shown > rows) return;
        row = sample.row;
        const char* side = data.unit() == 1 ? "" : which == 0 ? ", chosen" : ", rejected";
        Print(summary, sample, side);
      }
    }
  }

  Json samples = Json::array();

 private:
  void Print(const SourceSummary& summary, const SampleView& sample, const char* side) {
    const std::vector<Run> runs = RunsOf(model_.tokenizer, sample);
    if (json_) {
      Json parts = Json::array();
      for (const Run& run : runs) parts.push_back({{"text", run.text}, {"trained", run.trained}});
      samples.push_back({{"source", summary.name},
                         {"line", sample.row},
                         {"tokens", sample.tokens.size()},
                         {"trained", sample.num_trained},
                         {"parts", parts}});
      return;
    }
    fmt::print("== {}, {} {}{}: {} tokens, {} learned\n", summary.name, summary.unit, sample.row,
               side, sample.tokens.size(), sample.num_trained);
    for (const Run& run : runs) {
      const std::string text = Printable(run.text);
      if (colours_) {
        fmt::print("{}{}\x1b[0m", run.trained ? "\x1b[1;32m" : "\x1b[2m", text);
      } else {
        fmt::print("{}{}{}", run.trained ? "⟦" : "", text, run.trained ? "⟧" : "");
      }
    }
    fmt::print("\n\n");
  }

  const Model& model_;
  const bool json_, colours_;
};

}  // namespace

int DataShow(const Arguments& arguments) {
  DataArguments what;
  int64_t rows = 3, first = 1;
  std::optional<int64_t> threads;
  bool json = false;
  Flags flags("data show",
              "Rows as the model's template writes them. What is learned is green, or between ⟦ "
              "and ⟧ where the output is no terminal.",
              "bakestone data show my-handbook/bake.toml --rows 2");
  what.AddTo(flags);
  flags.Add("--rows", &rows, 1, INT64_MAX, "Rows of each source to show (default 3)");
  flags.Add("--line", &first, 1, INT64_MAX, "Begin at this line of the file");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  flags.Add("--json", &json, "Print one JSON object");
  flags.Parse(arguments);
  const ChosenSources chosen = Choose(what);
  if (chosen.model.empty()) {
    throw UsageError("data show: --model is needed to show a file: it has the template");
  }
  ThreadPool pool(NumThreads(threads));
  const TemporaryFolder scratch("bakestone-base");
  std::filesystem::path path = ResolveModel(chosen.model);
  const bool grown = chosen.recipe && chosen.recipe->grows_base();
  if (grown) {
    path = GrowBase(*chosen.recipe, path, scratch.path() / "base.gguf", Kernels(), pool,
                    [](int64_t, int64_t) {})
               .model;
  }
  const auto model = Model::Load(path, Kernels(), pool, Loading(grown));
  const ChatEncoder encode = [&](const Json& messages, bool prompt, const Json* tools) {
    return RenderChat(*model, messages, prompt, tools).tokens;
  };
  Shower shower(*model, json);
  Json sources = Json::array();
  for (const ChosenSource& one : chosen.sources) {
    ReadOptions options = ReadingOf(one.stage);
    options.pool = &pool;
    const SourceSamples samples = ReadDataset(*model, encode, one.source, options);
    shower.Show(samples.train, samples.summary, first, rows);
    sources.push_back(ToJson(samples.summary));
    if (json) continue;
    fmt::print(stderr, "{}; {} tokens, {} of them learned\n", samples.summary.Line(),
               samples.train.counts().tokens, samples.train.counts().trained);
    for (const std::string& warning : samples.summary.Warnings()) {
      fmt::print(stderr, "warning: {}\n", warning);
    }
  }
  if (json) {
    fmt::print("{}\n", Json{{"sources", sources}, {"samples", shower.samples}}.dump(
                           2, ' ', false, Json::error_handler_t::replace));
  }
  return 0;
}

}  // namespace bakestone::cli
