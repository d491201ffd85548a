// bakestone merge BASE OUT: adapters into their base, or models of one kind into one.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <fmt/core.h>

#include "base/error.h"
#include "data/byte_source.h"
#include "base/quote.h"
#include "cli/convert_report.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "convert/hf_source.h"
#include "convert/importance.h"
#include "convert/merge.h"
#include "format/peft.h"

namespace bakestone::cli {
namespace {

struct Wanted {
  std::string base, out, method, type;
  std::vector<std::string> adapters, models, measure;
  std::optional<std::string> matrix;
  std::optional<int64_t> threads;
  double density = 0.5;
  int64_t seed = 1, measure_tokens = 2000;
  bool json = false;
};

MergeMethod MethodOf(const Wanted& wanted) {
  if (wanted.method == "sum" || wanted.method == "linear" || wanted.method == "task") {
    return MergeMethod::kSum;
  }
  if (wanted.method == "ties") return MergeMethod::kTies;
  if (wanted.method == "dare-ties") return MergeMethod::kDareTies;
  if (wanted.method == "slerp") return MergeMethod::kSlerp;
  throw UsageError(
      fmt::format("merge: --method: expected sum, linear, task, ties, dare-ties or slerp, found {}",
                  Quote(wanted.method)));
}

Wanted Parse(const Arguments& arguments) {
  Wanted wanted;
  Flags flags(
      "merge", "Merge adapters into their base, or models with one tokenizer into one.",
      "bakestone merge base.gguf merged.gguf --adapter mine.gguf --type q8_0 --measure notes.txt");
  flags.Positional("BASE", &wanted.base,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.Positional("OUT", &wanted.out, "The GGUF file to write");
  flags.Add("--adapter", &wanted.adapters,
            "PATH[=WEIGHT]: a GGUF adapter or a PEFT folder of this base (weight 1)");
  flags.Add("--model", &wanted.models,
            "PATH[=WEIGHT]: another model of this architecture and tokenizer (weight: an equal "
            "share, with task 1)");
  flags.Add(
      "--method", &wanted.method,
      "sum (adapters), linear, task, slerp (models), ties or dare-ties; default: sum, linear");
  flags.Add("--density", &wanted.density, 1e-4, 1.0, "What ties and dare-ties keep of each change");
  flags.Add("--seed", &wanted.seed, 0, INT64_MAX, "Of what dare-ties drops");
  flags.Add("--type", &wanted.type,
            "A type of 'bakestone quantize'; default: each tensor as in BASE");
  flags.Add("--imatrix", &wanted.matrix,
            "An importance matrix for encoding, as 'bakestone quantize' keeps it");
  flags.Add("--measure", &wanted.measure, "A text to compare the merged with the unmerged on");
  flags.Add("--measure-tokens", &wanted.measure_tokens, 2, int64_t{1} << 40,
            "Tokens of each such text, from its start");
  flags.Add("--threads", &wanted.threads, 1, 1024, "Threads to use");
  flags.Add("--json", &wanted.json, "Print one JSON object");
  flags.Parse(arguments);
  if (wanted.adapters.empty() == wanted.models.empty()) {
    throw UsageError("merge: expected either --adapter or --model; see 'bakestone merge --help'");
  }
  if (wanted.method.empty()) wanted.method = wanted.models.empty() ? "sum" : "linear";
  MethodOf(wanted);
  if (!wanted.type.empty() && FindQuantMix(wanted.type) == nullptr) {
    throw UsageError(
        fmt::format("merge: --type: expected a type of 'bakestone quantize --help', found {}",
                    Quote(wanted.type)));
  }
  return wanted;
}

struct Weighted {
  std::string path;
  std::optional<double> weight;
};

// "PATH=0.3"; a path may hold '=' where no number follows.
Weighted ParseWeighted(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals + 1 == text.size()) return {text, std::nullopt};
  char* end = nullptr;
  const double weight = std::strtod(text.c_str() + equals + 1, &end);
  if (*end != '\0') return {text, std::nullopt};
  if (!std::isfinite(weight)) {
    throw UsageError(fmt::format("merge: {}: expected a finite weight", Quote(text)));
  }
  return {text.substr(0, equals), weight};
}

std::vector<MergeAdapter> ReadAdapters(const Wanted& wanted, const ModelSource& base) {
  std::vector<MergeAdapter> adapters;
  for (const std::string& text : wanted.adapters) {
    const Weighted one = ParseWeighted(text);
    AdapterFile file = std::filesystem::is_directory(one.path)
                           ? ReadPeftAdapter(one.path)
                           : ReadGgufAdapter(one.path, HeadsOf(base));
    if (file.name.empty()) file.name = std::filesystem::path(one.path).filename().string();
    adapters.push_back({std::move(file), one.weight.value_or(1)});
  }
  return adapters;
}

std::vector<MergeModel> ReadModels(const Wanted& wanted) {
  std::vector<MergeModel> models;
  const double share = wanted.method == "linear" || wanted.method == "slerp"
                           ? 1.0 / static_cast<double>(wanted.models.size() + 1)
                           : 1.0;
  for (const std::string& text : wanted.models) {
    const Weighted one = ParseWeighted(text);
    models.push_back({OpenSource(ResolveModel(one.path)), one.weight.value_or(share)});
  }
  return models;
}

void Write(const Wanted& wanted, const Merged& merged, const QuantizePlan& plan, ThreadPool& pool) {
  WriteOptions options;
  std::optional<ImportanceMatrix> matrix;
  std::optional<ImportanceWeights> weights;
  if (wanted.matrix) {
    matrix = ImportanceMatrix::Read(*wanted.matrix);
    weights.emplace(*matrix, merged.source);
    options.importance = weights->AsSource();
    options.notes =
        weights->Notes(*matrix, std::filesystem::path(*wanted.matrix).filename().string());
  }
  std::string what = wanted.method;
  for (const std::string& text : wanted.adapters) {
    what += " " + std::filesystem::path(text).filename().string();
  }
  for (const std::string& text : wanted.models) {
    what += " " + std::filesystem::path(text).filename().string();
  }
  options.notes.emplace_back("bakestone.merged", what);
  WriteWithBar("merging", merged.source, plan, wanted.out, pool, std::move(options));
}

// Whether rounding ate what was merged, and what to do about it.
void SayLoss(const MergeLoss& loss, bool adapters) {
  if (loss.change == 0 || loss.error == 0) return;
  fmt::print(stderr,
             "rounding to the new types moves weights by {:.2f} of what the merge changes\n",
             loss.error / loss.change);
  if (loss.error < 0.5 * loss.change) return;
  fmt::print(stderr,
             "warning: so much of the merge is lost: {}write more bits (--type q8_0 or f16)\n",
             adapters ? "keep the adapter separate (--adapter of run, serve and eval), or " : "");
}

// The first row is what is served without merging, where that can be had; then the merged model,
// and the base.
std::vector<Compared> Measure(const Wanted& wanted, const std::filesystem::path& base,
                              const std::vector<std::string>& texts,
                              const std::vector<MergeAdapter>& adapters, std::string& original,
                              ThreadPool& pool) {
  if (texts.empty()) return {};
  const std::filesystem::path out = wanted.out;
  const std::string name = base.filename().string();
  if (!adapters.empty() && MethodOf(wanted) == MergeMethod::kSum) {
    try {
      const AdapterFile sum = SumOfAdapters(adapters);
      original = name + " + adapter";
      return Compare({.path = base, .adapter = &sum},
                     {{out.filename().string(), out}, {name + " alone", base}}, texts,
                     wanted.measure_tokens, pool);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported) throw;
      fmt::print(stderr, "compared with the base alone: {}\n", error.what());
    }
  }
  original = name;
  return Compare({.path = base}, {{out.filename().string(), out}}, texts, wanted.measure_tokens,
                 pool);
}

}  // namespace

int Merge(const Arguments& arguments) {
  const Wanted wanted = Parse(arguments);
  CatchSignals();
  const std::filesystem::path path = ResolveModel(wanted.base), out = wanted.out;
  const ModelSource base = OpenSource(path);
  RefuseToReplace(base, out);
  std::vector<std::string> texts;
  for (const std::string& file : wanted.measure) texts.push_back(ReadText(file));
  ThreadPool pool(NumThreads(wanted.threads));
  const MergeOptions options{MethodOf(wanted), wanted.density, static_cast<uint64_t>(wanted.seed)};
  const std::vector<MergeAdapter> adapters = ReadAdapters(wanted, base);
  std::vector<MergeModel> models = ReadModels(wanted);
  for (const MergeModel& model : models) RefuseToReplace(model.source, out);
  const Merged merged = wanted.models.empty() ? MergeAdapters(base, adapters, options)
                                              : MergeModels(base, std::move(models), options);
  const QuantMix* mix = FindQuantMix(wanted.type);
  const QuantizePlan plan =
      mix != nullptr ? PlanQuantize(merged.source, {.mix = mix, .has_importance = !!wanted.matrix})
                     : PlanLike(merged.source, base);
  fmt::print(stderr, "merging {} of {} tensors\n", merged.num_merged, merged.source.tensors.size());
  if (merged.untied) {
    fmt::print(
        stderr,
        "embedding and head were one table: the merged model has two, each with its own changes\n");
  }
  PrintPlan(plan, mix != nullptr ? mix->name : "the base's types");
  Write(wanted, merged, plan, pool);
  SayLoss(MeasureMergeLoss(base, merged.source, OpenGgufSource(out), pool), !adapters.empty());
  std::string original;
  const std::vector<Compared> compared = Measure(wanted, path, texts, adapters, original, pool);
  PrintOutcome({.source = path,
                .out = out,
                .original = original,
                .plan = &plan,
                .compared = compared,
                .json = wanted.json});
  return 0;
}

}  // namespace bakestone::cli
