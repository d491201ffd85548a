// bakestone quantize MODEL OUT: the same model in fewer bits, and what that cost.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "data/byte_source.h"
#include "base/quote.h"
#include "cli/convert_report.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "convert/calibrate.h"
#include "convert/compare.h"
#include "convert/hf_source.h"
#include "convert/importance.h"
#include "convert/quantize.h"
#include "convert/target_size.h"
#include "model/model.h"

namespace bakestone::cli {
namespace {

struct Wanted {
  std::string model, out, type;
  std::vector<std::string> overrides, measure, calibrate;
  std::optional<std::string> matrix, save_matrix, target_size;
  int64_t calibrate_tokens = 50000;
  std::optional<int64_t> threads;
  int64_t measure_tokens = 2000;
  bool fast = false, json = false;
};

Wanted Parse(const Arguments& arguments) {
  Wanted wanted;
  std::vector<std::string_view> names;
  for (const QuantMix& mix : QuantMixes()) names.push_back(mix.name);
  Flags flags("quantize", "Write a model in fewer bits, and measure what that costs.",
              "bakestone quantize model-f16.gguf model-q4.gguf --type q4_k_m --measure notes.txt");
  flags.Positional("MODEL", &wanted.model,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.Positional("OUT", &wanted.out, "The GGUF file to write");
  flags.Add("--type", &wanted.type, fmt::format("One of {}", fmt::join(names, ", ")));
  flags.Add("--target-size", &wanted.target_size,
            "Instead of --type: the file's size at most (900MB, 4.5GB, 700MiB); types by the "
            "divergence that "
            "--calibrate's texts show");
  flags.Add("--tensor", &wanted.overrides,
            "PATTERN=TYPE: another type for the tensors that fit, such as ffn_down.weight=q6_k or "
            "blk.0.*=q8_0");
  flags.Add(
      "--calibrate", &wanted.calibrate,
      "A text of yours: errors count by how much it makes of each column (an importance matrix)");
  flags.Add("--calibrate-tokens", &wanted.calibrate_tokens, 1, int64_t{1} << 40,
            "Tokens of all such texts together");
  flags.Add("--imatrix", &wanted.matrix,
            "An importance matrix made before, in llama.cpp's GGUF form");
  flags.Add("--save-imatrix", &wanted.save_matrix, "Keep the matrix of --calibrate in this file");
  flags.Add("--fast", &wanted.fast,
            "Search less for each block, as --quantize of other verbs does while a model loads; "
            "without an importance matrix");
  flags.Add("--measure", &wanted.measure, "A text to compare both models on");
  flags.Add("--measure-tokens", &wanted.measure_tokens, 2, int64_t{1} << 40,
            "Tokens of each such text, from its start");
  flags.Add("--threads", &wanted.threads, 1, 1024, "Threads to use");
  flags.Add("--json", &wanted.json, "Print one JSON object");
  flags.Parse(arguments);
  if (wanted.target_size) {
    if (!wanted.type.empty() || !wanted.overrides.empty() || wanted.calibrate.empty()) {
      throw UsageError(
          "quantize: --target-size: expected --calibrate beside it, and neither --type nor "
          "--tensor");
    }
  } else if (FindQuantMix(wanted.type) == nullptr) {
    throw UsageError(fmt::format("quantize: --type: expected one of {}, found {}",
                                 fmt::join(names, ", "),
                                 wanted.type.empty() ? "none" : Quote(wanted.type)));
  }
  for (const std::string& text : wanted.overrides) ParseTypeOverride(text);  // before hours of work
  if (wanted.target_size) ParseSize(*wanted.target_size);
  if (!wanted.calibrate.empty() && wanted.matrix) {
    throw UsageError("quantize: expected --calibrate or --imatrix, found both");
  }
  if (wanted.fast && (!wanted.calibrate.empty() || wanted.matrix)) {
    throw UsageError("quantize: --fast: expected neither --calibrate nor --imatrix beside it");
  }
  if (wanted.calibrate.empty() && wanted.save_matrix) {
    throw UsageError("quantize: --save-imatrix: expected --calibrate beside it");
  }
  return wanted;
}

ImportanceMatrix CalibrateOn(const Wanted& wanted, const std::filesystem::path& path,
                             ThreadPool& pool) {
  std::vector<CalibrationText> texts;
  for (const std::string& file : wanted.calibrate) {
    texts.push_back({std::filesystem::path(file).filename().string(), ReadText(file)});
  }
  const auto model = Model::Load(path, Kernels(), pool);
  Exec exec(Kernels(), pool, Precision::kExact);
  std::unique_ptr<Progress> progress;
  CalibrateOptions options{.max_tokens = wanted.calibrate_tokens};
  options.progress = [&](int64_t done, int64_t total) {
    ThrowIfStopped();
    if (!progress) progress = std::make_unique<Progress>("calibrating", total, "tokens");
    progress->Update(done);
  };
  ImportanceMatrix matrix = Calibrate(*model, exec, texts, options);
  if (wanted.save_matrix) matrix.Write(*wanted.save_matrix);
  return matrix;
}

// The matrix that was asked for, and ready for the source; both absent where none was.
struct Importance {
  std::optional<ImportanceMatrix> matrix;
  std::optional<ImportanceWeights> weights;
  std::string file;
};

Importance ReadyImportance(const Wanted& wanted, const ModelSource& source,
                           const std::filesystem::path& path, ThreadPool& pool) {
  Importance importance;
  if (wanted.matrix) {
    importance.matrix = ImportanceMatrix::Read(*wanted.matrix);
    importance.file = std::filesystem::path(*wanted.matrix).filename().string();
  } else if (!wanted.calibrate.empty()) {
    importance.matrix = CalibrateOn(wanted, path, pool);
    importance.file =
        wanted.save_matrix ? std::filesystem::path(*wanted.save_matrix).filename().string() : "";
  } else {
    return importance;
  }
  importance.weights.emplace(*importance.matrix, source);
  fmt::print(stderr, "importance: {} matrices", importance.weights->num_matrices());
  if (importance.weights->num_unreached() > 0) {
    fmt::print(stderr,
               "; {} of them no token reached, their columns count alike: a longer or more varied "
               "text helps",
               importance.weights->num_unreached());
  }
  fmt::print(stderr, "\n");
  return importance;
}

QuantizePlan PlanFor(const Wanted& wanted, const ModelSource& source,
                     const std::filesystem::path& path, const Importance& importance,
                     ThreadPool& pool) {
  if (!wanted.target_size) {
    PlanOptions options{.mix = FindQuantMix(wanted.type),
                        .has_importance = importance.weights.has_value()};
    for (const std::string& text : wanted.overrides) {
      options.overrides.push_back(ParseTypeOverride(text));
    }
    return PlanQuantize(source, options);
  }
  TargetOptions options{.max_bytes = ParseSize(*wanted.target_size)};
  for (const std::string& file : wanted.calibrate) options.texts.push_back(ReadText(file));
  options.tokens = std::min(wanted.calibrate_tokens, wanted.measure_tokens);
  options.importance = importance.weights->AsSource();
  options.scales = [&](const SourceTensor& tensor) { return importance.weights->ScalesOf(tensor); };
  options.scratch = wanted.out + ".trial";
  std::unique_ptr<Progress> progress;
  options.progress = [&](int64_t done, int64_t total, const std::string& group) {
    ThrowIfStopped();
    if (total == 1) return;
    if (!progress) progress = std::make_unique<Progress>("measuring", total, "groups");
    progress->Update(done, group);
  };
  TargetPlan target = PlanForSize(source, path, Kernels(), pool, options);
  progress.reset();
  fmt::print(stderr, "divergence on these texts: {:.4f}{}\n", target.kl,
             target.mix.empty() ? "" : ", with the types of " + target.mix);
  return std::move(target.plan);
}

}  // namespace

int Quantize(const Arguments& arguments) {
  const Wanted wanted = Parse(arguments);
  CatchSignals();
  const std::filesystem::path path = ResolveModel(wanted.model), out = wanted.out;
  const ModelSource source = OpenSource(path);
  RefuseToReplace(source, out);
  std::vector<std::string> texts;
  for (const std::string& file : wanted.measure) texts.push_back(ReadText(file));
  ThreadPool pool(NumThreads(wanted.threads));
  const Importance importance = ReadyImportance(wanted, source, path, pool);
  const QuantizePlan plan = PlanFor(wanted, source, path, importance, pool);
  PrintPlan(plan, wanted.target_size ? "smaller" : FindQuantMix(wanted.type)->name);
  WriteOptions write{.fast = wanted.fast};
  if (importance.weights) {
    write.importance = importance.weights->AsSource();
    write.notes = importance.weights->Notes(*importance.matrix, importance.file);
  }
  WriteWithBar("quantizing", source, plan, out, pool, std::move(write));
  std::vector<Compared> compared;
  if (!texts.empty()) {
    compared = Compare({.path = path}, {{out.filename().string(), out}}, texts,
                       wanted.measure_tokens, pool);
  }
  PrintOutcome(
      {.source = path, .out = out, .plan = &plan, .compared = compared, .json = wanted.json});
  return 0;
}

}  // namespace bakestone::cli
