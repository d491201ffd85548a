// bakestone bench MODEL: how fast it computes and starts, against what the machine allows.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/core.h>

#include "base/start_time.h"
#include "cli/bench_report.h"
#include "cli/bench_serve.h"
#include "cli/bench_train.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/load_flags.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "kernels/isa.h"
#include "model/model_file.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::filesystem::path model;
  std::vector<std::string> names;  // of the figures wanted
  SpeedOptions speed;
  int threads = 1;
  LoadFlags load;
  LoadOptions loading;  // as they say
  bool roofline = false, json = false;
  std::optional<EarlierBench> earlier;
};

constexpr const char* kDefaultNames =
    "start-warm,start-cold,memory,prefill-128,prefill-512,prefill-2048,prefill-8192,decode-0,"
    "decode-2048,decode-8192,batch-1,batch-2,batch-4,batch-8,batch-16,batch-32";

bool IsStart(const std::string& name) {
  return name == "start-warm" || name == "start-cold" || name == "memory";
}

struct Measure {
  std::string kind;  // "prefill", "decode", "batch"
  int64_t number = 0;
};

std::optional<Measure> ParseMeasure(const std::string& name) {
  const size_t dash = name.rfind('-');
  if (dash == std::string::npos) return std::nullopt;
  Measure measure{name.substr(0, dash), 0};
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + dash + 1, end, measure.number);
  if (error != std::errc{} || at != end) return std::nullopt;
  const bool decode = measure.kind == "decode", batch = measure.kind == "batch";
  if (!decode && !batch && measure.kind != "prefill") return std::nullopt;
  if (measure.number < (decode ? 0 : 1) || measure.number > (batch ? 1024 : 1 << 24)) {
    return std::nullopt;
  }
  return measure;
}

std::vector<std::string> ParseNames(const std::string& list) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    names.push_back(list.substr(begin, end - begin));
    if (!IsStart(names.back()) && !ParseMeasure(names.back())) {
      throw UsageError(fmt::format("bench: --only: expected names such as {}, found '{}'",
                                   kDefaultNames, names.back()));
    }
    begin = end + 1;
  }
  return names;
}

Options Parse(const Arguments& arguments) {
  Options options;
  std::string model, only = kDefaultNames;
  std::optional<std::string> compare;
  std::optional<int64_t> threads;
  Flags flags(
      "bench",
      "How fast a model reads prompts, decodes and starts: medians, and their share of what the "
      "machine's memory and arithmetic allow. With --serve URL: load on a server; with --train: "
      "steps of "
      "training; 'bakestone bench --serve URL --help' and 'bakestone bench MODEL --train --help' "
      "show their flags.",
      "bakestone bench smollm2-135m-instruct --only prefill-512,decode-0,batch-8");
  flags.Positional("MODEL", &model,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.Add("--only", &only,
            "What to measure: prefill-TOKENS, decode-CONTEXT, batch-SEQUENCES, start-warm, "
            "start-cold, memory");
  flags.Add("--repetitions", &options.speed.repetitions, 0, 1000,
            "Of each figure; 0: up to 5 in about 4 seconds");
  flags.Add("--decode-tokens", &options.speed.decode_tokens, 1, 1 << 20, "Tokens of one decode");
  flags.Add("--threads", &threads, 1, 1024, "Threads to compute with");
  flags.Add("--roofline", &options.roofline,
            "Also the limits of every kernel table, and each matrix against its limit");
  flags.Add("--compare", &compare, "An earlier --json: adds ratios to it");
  AddLoadFlags(flags, &options.load);
  flags.Add("--json", &options.json, "Print one JSON object");
  flags.Parse(arguments);
  options.model = ResolveModel(model);
  options.names = ParseNames(only);
  options.loading = Loading("bench", options.load);
  options.loading.wait_until_kept = true;
  options.threads = NumThreads(threads);
  if (compare) options.earlier = ReadEarlier(*compare);
  return options;
}

// The model's file and its packed weights leave the page cache.
void Cool(const Options& options) {
  const LoadOptions& loading = options.loading;
  const ModelFile file = ModelFile::Open(options.model);
  if (loading.pack_cache) {
    const PackCache cache(*loading.pack_cache);
    const Hash source =
        file.ContentHash([&](const std::filesystem::path& path) { return cache.SourceHash(path); });
    const std::filesystem::path packed =
        cache.PathOf(loading.types ? loading.types(options.model).Identity(source) : source);
    if (std::filesystem::exists(packed)) DropFromPageCache(packed);
  }
  for (const std::filesystem::path& path : file.Files()) DropFromPageCache(path);
}

// Starts of this very program: to the first token of a one-word prompt. Before this process maps
// the model.
std::vector<BenchRow> MeasureStarts(const Options& options) {
  const auto wanted = [&](const char* name) {
    return std::find(options.names.begin(), options.names.end(), name) != options.names.end();
  };
  std::vector<std::string> arguments = {"run",
                                        options.model.string(),
                                        "--raw",
                                        "--max-tokens",
                                        "1",
                                        "--temperature",
                                        "0",
                                        "--seed",
                                        "1",
                                        "--threads",
                                        std::to_string(options.threads),
                                        "Hello"};
  if (options.load.no_pack_cache) arguments.emplace_back("--no-pack-cache");
  if (options.load.quantize) {
    arguments.insert(arguments.end(), {"--quantize", *options.load.quantize});
  }
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  const int64_t count = options.speed.repetitions > 0 ? options.speed.repetitions : 5;
  std::vector<BenchRow> rows;
  std::vector<double> warm, cold, memory;
  if (wanted("start-warm") || wanted("memory")) {
    MeasureStart(program, arguments);  // the file into the page cache
    for (int64_t i = 0; i < count && !StopRequested(); ++i) {
      const StartTime start = MeasureStart(program, arguments);
      warm.push_back(start.seconds);
      memory.push_back(static_cast<double>(start.peak_bytes));
    }
  }
  for (int64_t i = 0; i < count && wanted("start-cold") && !StopRequested(); ++i) {
    Cool(options);
    cold.push_back(MeasureStart(program, arguments).seconds);
  }
  if (wanted("start-warm") && !warm.empty()) rows.push_back({"start-warm", "s", SpreadOf(warm)});
  if (!cold.empty()) rows.push_back({"start-cold", "s", SpreadOf(cold)});
  if (wanted("memory") && !memory.empty()) rows.push_back({"memory", "bytes", SpreadOf(memory)});
  return rows;
}

Json MeasureTables(ThreadPool& pool, bool print) {
  Json tables = Json::array();
  if (print) {
    fmt::print("\n{:<12} {:>22} {:>22} {:>22}\n", "kernels", "int8 mult.-adds/s",
               "bf16 mult.-adds/s", "f32 mult.-adds/s");
  }
  for (const KernelTable* table : AvailableKernels()) {
    const ops::Peaks peaks = ops::MeasurePeaks(*table, pool);
    tables.push_back({{"isa", IsaName(table->isa)},
                      {"int8_multiply_adds_per_second", peaks.int8_per_second},
                      {"bf16_multiply_adds_per_second", peaks.bf16_per_second},
                      {"f32_multiply_adds_per_second", peaks.float_per_second}});
    if (print) {
      fmt::print("{:<12} {:>20.1f} G {:>20.1f} G {:>20.1f} G\n", IsaName(table->isa),
                 peaks.int8_per_second * 1e-9, peaks.bf16_per_second * 1e-9,
                 peaks.float_per_second * 1e-9);
    }
  }
  return tables;
}

void PrintSetting(const Options& options, const Json& result, const MachineLimits& limits) {
  fmt::print("{} ({:.0f} MB), {} threads, {} kernels, {}\n", options.model.string(),
             result["file_bytes"].get<double>() * 1e-6, options.threads,
             result["isa"].get<std::string>(), result["cpu"].get<std::string>());
  fmt::print(
      "limits: memory read at {:.1f} GB/s ({:.1f} with one thread), {:.0f} G int8, {:.0f} G bf16 "
      "and "
      "{:.0f} G f32 multiply-adds/s\n\n",
      limits.read_bandwidth * 1e-9, limits.read_bandwidth_one * 1e-9,
      limits.peaks.int8_per_second * 1e-9, limits.peaks.bf16_per_second * 1e-9,
      limits.peaks.float_per_second * 1e-9);
}

// Ratios of different things mean something else: say so.
void WarnOfDifferences(const EarlierBench& earlier, const Json& result) {
  for (const auto& [key, value] : earlier.setting.items()) {
    if (value == result[key]) continue;
    fmt::print(stderr, "bakestone: bench: --compare: its {} was {}, now it is {}\n", key,
               value.dump(), result[key].dump());
  }
}

class Report {
 public:
  Report(const Options& options, Json& result) : options_(options), result_(result) {}

  void Add(const BenchRow& row) {
    Json json = ToJson(row);
    if (options_.earlier) {
      const auto found = options_.earlier->medians.find(row.name);
      if (found != options_.earlier->medians.end()) json["earlier_median"] = found->second;
    }
    result_["figures"].push_back(std::move(json));
    if (!options_.json) Print(row, options_.earlier ? &*options_.earlier : nullptr);
  }

 private:
  const Options& options_;
  Json& result_;
};

void MeasureSpeeds(const Options& options, const Model& model, SpeedBench& bench, Report& report) {
  for (const std::string& name : options.names) {
    const auto measure = ParseMeasure(name);
    if (!measure || StopRequested()) continue;
    if (measure->kind != "batch" && measure->number > model.config.context_length) {
      fmt::print(stderr, "bakestone: bench: {} left out: the model's context is {} tokens\n", name,
                 model.config.context_length);
      continue;
    }
    report.Add(RowOf(measure->kind == "prefill"  ? bench.Prefill(measure->number)
                     : measure->kind == "decode" ? bench.Decode(measure->number)
                                                 : bench.Batch(measure->number)));
  }
}

}  // namespace

int Bench(const Arguments& arguments) {
  if (AsksForLoad(arguments)) return BenchServe(arguments);
  if (AsksForTraining(arguments)) return BenchTrain(arguments);
  const Options options = Parse(arguments);
  CatchSignals();
  const std::vector<BenchRow> starts = MeasureStarts(options);
  const MachineInfo machine = ReadMachine();
  ThreadPool pool(options.threads);
  const auto model = Model::Load(options.model, Kernels(), pool, options.loading);
  SpeedBench bench(*model, Kernels(), pool, options.speed);
  Json result = {{"model", options.model.filename().string()},
                 {"file_bytes", ModelFile::Open(options.model).bytes()},
                 {"threads", options.threads},
                 {"isa", IsaName(Kernels().isa)},
                 {"cpu", machine.cpu},
                 {"limits", ToJson(bench.limits())},
                 {"figures", Json::array()}};
  if (options.earlier) WarnOfDifferences(*options.earlier, result);
  if (!options.json) {
    PrintSetting(options, result, bench.limits());
    PrintHeading(options.earlier.has_value());
  }
  Report report(options, result);
  for (const BenchRow& row : starts) report.Add(row);
  MeasureSpeeds(options, *model, bench, report);
  if (options.roofline && !StopRequested()) {
    constexpr int64_t kPrefillRows = 512;
    const std::vector<ShapeFigure> shapes = bench.Shapes(kPrefillRows);
    for (const ShapeFigure& shape : shapes) result["shapes"].push_back(ToJson(shape));
    if (!options.json) Print(shapes);
    result["kernels"] = MeasureTables(pool, !options.json);
  }
  if (options.json) fmt::print("{}\n", result.dump(2));
  return StopRequested() ? 130 : 0;
}

}  // namespace bakestone::cli
