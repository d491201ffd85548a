// bakestone quantize MODEL OUT: the same model in fewer bits, and what that cost.
#include <cstdio>
#include <optional>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/file.h"
#include "base/quote.h"
#include "cli/convert_report.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "convert/compare.h"
#include "convert/quantize.h"

namespace bakestone::cli {
namespace {

struct Wanted {
  std::string model, out, type;
  std::vector<std::string> overrides, measure;
  std::optional<int64_t> threads;
  int64_t measure_tokens = 2000;
  bool json = false;
};

Wanted Parse(const Arguments& arguments) {
  Wanted wanted;
  std::vector<std::string_view> names;
  for (const QuantMix& mix : QuantMixes()) names.push_back(mix.name);
  Flags flags("quantize", "Write a model in fewer bits, and measure what that costs.",
              "bakestone quantize model-f16.gguf model-q4.gguf --type q4_k_m --measure notes.txt");
  flags.Positional("MODEL", &wanted.model, "A GGUF file, or the name of one in the home folder");
  flags.Positional("OUT", &wanted.out, "The GGUF file to write");
  flags.Add("--type", &wanted.type, fmt::format("One of {}", fmt::join(names, ", ")));
  flags.Add("--tensor", &wanted.overrides,
            "PATTERN=TYPE: another type for the tensors that fit, such as ffn_down.weight=q6_k or blk.0.*=q8_0");
  flags.Add("--measure", &wanted.measure, "A text to compare both models on");
  flags.Add("--measure-tokens", &wanted.measure_tokens, 2, int64_t{1} << 40, "Tokens of each such text, from its start");
  flags.Add("--threads", &wanted.threads, 1, 1024, "Threads to use");
  flags.Add("--json", &wanted.json, "Print one JSON object");
  flags.Parse(arguments);
  if (FindQuantMix(wanted.type) == nullptr) {
    throw UsageError(fmt::format("quantize: --type: expected one of {}, found {}", fmt::join(names, ", "),
                                 wanted.type.empty() ? "none" : Quote(wanted.type)));
  }
  return wanted;
}

}  // namespace

int Quantize(const Arguments& arguments) {
  const Wanted wanted = Parse(arguments);
  CatchSignals();
  const std::filesystem::path path = ResolveModel(wanted.model), out = wanted.out;
  const ModelSource source = OpenGgufSource(path);
  RefuseToReplace(source, out);
  std::vector<std::string> texts;
  for (const std::string& file : wanted.measure) texts.push_back(ReadFile(file));
  PlanOptions plan_options{.mix = FindQuantMix(wanted.type)};
  for (const std::string& text : wanted.overrides) plan_options.overrides.push_back(ParseTypeOverride(text));
  const QuantizePlan plan = PlanQuantize(source, plan_options);
  PrintPlan(plan, *plan_options.mix);

  ThreadPool pool(NumThreads(wanted.threads));
  {
    Progress progress("quantizing", plan.bytes() >> 20, "MB");
    WriteQuantized(source, plan, out, Kernels(), pool,
                   {.progress = [&](int64_t done, int64_t, const std::string& tensor) {
                      ThrowIfStopped();
                      progress.Update(done >> 20, tensor);
                    }});
  }
  std::vector<Compared> compared;
  if (!texts.empty()) compared = Compare(path, {{out.filename().string(), out}}, texts, wanted.measure_tokens, pool);
  PrintOutcome({.source = path, .out = out, .plan = &plan, .compared = compared, .json = wanted.json});
  return 0;
}

}  // namespace bakestone::cli
