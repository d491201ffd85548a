// bakestone bake RECIPE: the whole road. bakestone train RECIPE: its training stages and the
// export.
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "cli/bake_table.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/load_flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "cli/version.h"
#include "pipeline/report.h"

namespace bakestone::cli {
namespace {

std::string OneLine(std::string text, size_t most) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  if (text.size() > most) {
    size_t end = most;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  return text;
}

class Printer : public BakeObserver {
 public:
  void OnStage(const std::string& name, const std::string& what) override {
    EndProgress();
    fmt::print(stderr, "\n== {}: {}\n", name, what);
  }
  void OnReused(const std::string& name) override {
    EndProgress();
    fmt::print(stderr, "== {}: done before, nothing changed\n", name);
  }
  void OnLine(const std::string& line) override { Print("   " + line); }
  void OnWarning(const std::string& line) override { Print("   warning: " + line); }
  void OnProgress(const std::string& label, int64_t done, int64_t total, const std::string& unit,
                  const std::string& note) override {
    if (!progress_ || label != label_) {
      EndProgress();
      progress_ = std::make_unique<Progress>("   " + label, total, unit);
      label_ = label;
    }
    progress_->Update(done, note);
  }
  void OnProbe(const AnsweredQuestion& probe, double seconds) override {
    Print(fmt::format("   {:3.0f} s  Q: {}\n          A: {}  [{}]", seconds,
                      OneLine(probe.question, 100), OneLine(probe.answer, 140),
                      probe.right ? "right" : "not yet"));
  }
  bool Cancelled() override { return StopRequested(); }

  void EndProgress() {
    progress_.reset();
    label_.clear();
  }

 private:
  void Print(const std::string& line) {
    if (progress_) {
      progress_->Print(line);
    } else {
      fmt::print(stderr, "{}\n", line);
    }
  }

  std::unique_ptr<Progress> progress_;
  std::string label_;
};

Activation ParseActivation(const std::string& verb, const std::string& word) {
  if (word == "auto") return Activation::kAuto;
  if (word == "stash") return Activation::kStash;
  if (word == "recompute") return Activation::kRecompute;
  throw UsageError(
      fmt::format("{}: --activation: expected auto, stash or recompute, found '{}'", verb, word));
}

void PrintRate(const RateFinding& rate, bool json) {
  if (json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"suggested", rate.suggested},
                                              {"fastest", rate.fastest},
                                              {"lowest", rate.lowest},
                                              {"rates", rate.rates},
                                              {"losses", rate.losses}}
                           .dump(2));
    return;
  }
  fmt::print("{:>12} {:>10}\n", "rate", "loss");
  for (size_t i = 0; i < rate.rates.size(); i += 4) {
    fmt::print("{:>12.2e} {:>10.4f}\n", rate.rates[i], rate.losses[i]);
  }
  fmt::print("\nthe loss fell fastest at {:.1e} and was lowest at {:.1e}\nlearning_rate = {:.1e}\n",
             rate.fastest, rate.lowest, rate.suggested);
}

int RunRecipe(const Arguments& arguments, bool train_only) {
  std::string recipe_path;
  std::optional<std::string> output, base;
  std::optional<int64_t> threads, seed;
  std::string from, activation = "auto";
  bool json = false;
  LoadFlags load;
  BakeOptions options;
  const char* verb = train_only ? "train" : "bake";
  Flags flags(verb,
              train_only
                  ? "Run the training stages of a recipe and export the adapter."
                  : "Adapt a model to your documents: licence check, data check, evaluation, "
                    "training, evaluation, export, and an answer through the server.",
              fmt::format("bakestone {} examples/handbook/bake.toml", verb));
  flags.Positional("RECIPE", &recipe_path, "A TOML file; docs/recipes.md lists its keys");
  flags.Add("--output", &output, "Work folder (default: bakes/NAME in the home folder)");
  flags.Add("--base", &base, "Use this model instead of the recipe's");
  flags.Add("--seed", &seed, 0, INT64_MAX, "Use this seed instead of the recipe's");
  flags.Add("--from", &from, "Repeat from this stage on, though it was done before");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  flags.Add("--batch-tokens", &options.train.batch_tokens, 16, 1 << 20,
            "Tokens computed together while training: fewer take less memory");
  flags.Add("--activation", &activation,
            "What the backward pass needs of the layers: stash keeps it, recompute makes it again "
            "(less memory, slower); "
            "auto (default): as memory allows");
  flags.Add("--checkpoint-seconds", &options.train.checkpoint_seconds, 0, 1e6,
            "Seconds between checkpoints");
  flags.Add("--checkpoint-steps", &options.train.checkpoint_steps, 1, int64_t{1} << 40,
            "Also a checkpoint after every so many steps");
  AddLoadFlags(flags, &load);
  if (train_only) {
    flags.Add("--find-lr", &options.find_rate,
              "Only look for a learning rate for this stage: up to 80 steps from the base, each "
              "with a higher one");
  }
  flags.Add("--dry-run", &options.dry_run,
            "Only say what would be done: data, settings, memory, steps");
  flags.Add("--json", &json, "Print the report as one JSON object");
  flags.Parse(arguments);

  if (json && options.dry_run) {
    throw UsageError(
        fmt::format("{}: --json: expected without --dry-run, which has no report", verb));
  }
  options.train.activation = ParseActivation(verb, activation);
  CatchSignals();
  Recipe recipe = ReadRecipe(recipe_path, HomeFolder() / "data");
  if (base) recipe.base = *base;
  if (seed) recipe.seed = static_cast<uint64_t>(*seed);
  options.model = ResolveModel(recipe.base);
  options.folder = output ? std::filesystem::path(*output) : HomeFolder() / "bakes" / recipe.name;
  options.load = Loading(verb, load);
  if (load.quantize && !recipe.lora.served_as_adapter()) {
    throw UsageError(fmt::format(
        "{}: --quantize: expected a recipe whose result is an adapter, which is trained and served "
        "on the quantized base; this one's becomes one with the base: quantize what comes of it",
        verb));
  }
  options.sample_cache = HomeFolder() / "cache" / "samples";
  options.from = from;
  options.version = kVersion;
  options.train_only = train_only;
  ThreadPool pool(NumThreads(threads));
  Printer printer;
  const BakeReport report = Bake(recipe, options, Kernels(), pool, printer);
  printer.EndProgress();
  if (options.dry_run) return 0;
  if (report.rate) {
    PrintRate(*report.rate, json);
    return 0;
  }
  if (json) {
    fmt::print("{}\n", BakeReportJson(report).dump(2));
  } else {
    fmt::print("{}", BakeTable(report, load.quantize.value_or("")));
  }
  return 0;
}

}  // namespace

int Bake(const Arguments& arguments) { return RunRecipe(arguments, false); }
int Train(const Arguments& arguments) { return RunRecipe(arguments, true); }

}  // namespace bakestone::cli
