#include "cli/bench_train.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "engine/speed.h"
#include "kernels/isa.h"
#include "ops/peaks.h"
#include "train/memory_choice.h"
#include "train/train_speed.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

struct TrainBenchOptions {
  std::filesystem::path model;
  TrainSpeedOptions speed;
  int threads = 1;
  bool json = false;
};

TrainBenchOptions ParseTrainBench(const Arguments& arguments) {
  TrainBenchOptions options;
  std::string model;
  std::optional<int64_t> threads;
  bool train = false, recompute = false;
  Flags flags("bench --train",
              "Training steps on random tokens: LoRA pairs on every linear, or the whole model. "
              "Tokens a second, the "
              "share of what the machine's arithmetic allows, and where the time of a step goes.",
              "bakestone bench smollm2-135m-instruct --train --rows 4096 --document 512");
  flags.Positional("MODEL", &model,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.Add("--train", &train, "This");
  flags.Add("--rows", &options.speed.rows, 2, 1 << 20, "Tokens of a step");
  flags.Add("--document", &options.speed.document, 2, 1 << 20, "Tokens of each document in it");
  flags.Add("--chats", &options.speed.chats,
            "Instead documents of 20 to 1,500 tokens, the last 30 % of each learned, as in chats");
  flags.Add("--rank", &options.speed.rank, 0, 1024, "Of the pairs; 0: the whole model is trained");
  flags.Add("--steps", &options.speed.steps, 1, 10'000,
            "How many are measured, after one to warm up");
  flags.Add("--recompute", &recompute,
            "Compute layers again in backward instead of keeping what it needs");
  flags.Add("--threads", &threads, 1, 1024, "Threads to compute with");
  flags.Add("--json", &options.json, "Print one JSON object");
  flags.Parse(arguments);
  options.model = ResolveModel(model);
  options.threads = NumThreads(threads);
  if (recompute) options.speed.activation = ActivationPolicy::kRecompute;
  return options;
}

struct KindOfWork {
  const char* name;
  double seconds;
};

// Of all steps; what no phase counts is the last.
std::array<KindOfWork, 7> KindsOf(const TrainSpeed& speed, double total) {
  const TrainPhases& phases = speed.phases;
  const double known = phases.products + phases.attention + phases.rows + phases.head +
                       phases.weights + speed.optimizer;
  return {{{"products", phases.products},
           {"attention", phases.attention},
           {"rows", phases.rows},
           {"head and loss", phases.head},
           {"weights", phases.weights},
           {"optimizer", speed.optimizer},
           {"other", std::max(0.0, total - known)}}};
}

}  // namespace

bool AsksForTraining(const Arguments& arguments) {
  return std::find(arguments.begin(), arguments.end(), "--train") != arguments.end();
}

int BenchTrain(const Arguments& arguments) {
  TrainBenchOptions options = ParseTrainBench(arguments);
  ThreadPool pool(options.threads);
  const auto model = Model::Load(options.model, Kernels(), pool, Loading(false));
  const double product_limit = TrainProductLimit(Kernels().train, pool);
  const double peak =
      std::max(product_limit, 2 * ops::MeasurePeaks(Kernels(), pool).bf16_per_second);
  options.speed.weight_cache_bytes = WeightCacheFor(ReadMachine().available_bytes);
  const TrainSpeed speed = MeasureTraining(*model, Kernels(), pool, options.speed);
  const Spread seconds = SpreadOf(speed.step_seconds);
  const auto rows = static_cast<double>(speed.rows);
  const double rate = speed.flop / seconds.median;
  double total = 0;
  for (const double step : speed.step_seconds) total += step;
  const auto kinds = KindsOf(speed, total);
  if (options.json) {
    Json json = {{"model", options.model.filename().string()},
                 {"threads", options.threads},
                 {"isa", IsaName(Kernels().isa)},
                 {"cpu", ReadMachine().cpu},
                 {"rows", speed.rows},
                 {"document", options.speed.document},
                 {"chats", options.speed.chats},
                 {"rank", options.speed.rank},
                 {"recompute", options.speed.activation == ActivationPolicy::kRecompute},
                 {"steps", options.speed.steps},
                 {"tokens_per_second",
                  {{"median", rows / seconds.median},
                   {"least", rows / seconds.most},
                   {"most", rows / seconds.least}}},
                 {"flop_of_a_step", speed.flop},
                 {"flop_per_second", rate},
                 {"peak_flop_per_second", peak},
                 {"product_limit_flop_per_second", product_limit},
                 {"pass_bytes", speed.pass_bytes},
                 {"seconds", Json::object()}};
    for (const KindOfWork& kind : kinds) json["seconds"][kind.name] = kind.seconds;
    fmt::print("{}\n", json.dump(2));
    return 0;
  }
  fmt::print("{}, {} threads, {} kernels ({}), {}\n", options.model.string(), options.threads,
             IsaName(Kernels().isa), Kernels().train.product, ReadMachine().cpu);
  fmt::print(
      "{}; steps of {} tokens in {}, {}\n\n",
      options.speed.rank > 0 ? fmt::format("LoRA, r = {} on every linear", options.speed.rank)
                             : "the whole model",
      speed.rows,
      options.speed.chats
          ? "documents of 20 to 1,500, 30 % of each learned"
          : fmt::format("documents of {}", std::min(options.speed.rows, options.speed.document)),
      options.speed.activation == ActivationPolicy::kRecompute ? "layers computed again in backward"
                                                               : "activations kept");
  fmt::print("tokens/s        {:10.1f}    {:.1f} .. {:.1f} of {}\n", rows / seconds.median,
             rows / seconds.most, rows / seconds.least, seconds.count);
  fmt::print(
      "GFLOP/s         {:10.1f}    {:.0f} % of the machine's {:.0f} (products on operands in L1: "
      "{:.0f})\n",
      rate * 1e-9, 100 * rate / peak, peak * 1e-9, product_limit * 1e-9);
  fmt::print("memory of a pass {:9.1f} MB  scratch and activations\n\n",
             static_cast<double>(speed.pass_bytes) * 1e-6);
  const double tokens = rows * static_cast<double>(speed.step_seconds.size());
  for (const KindOfWork& kind : kinds) {
    fmt::print("{:<16}{:10.1f} us a token {:5.0f} %\n", kind.name, kind.seconds / tokens * 1e6,
               100 * kind.seconds / total);
  }
  return 0;
}

}  // namespace bakestone::cli
