// Files of one model against each other: how far each predicts from the original, token by token,
// and the first one's mean divergence over each other's with the bound of its 95 % interval.
//   kl_ratio_bench ORIGINAL OURS [THEIRS]... --text FILE [--text FILE]... [--tokens N] [--threads
//   N]
// Prints one JSON object. Activations, keys, values and sums are f32 (Precision::kExact), so that
// only the weights differ. bench/peers/quantize_compare.py makes the files and calls this.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/thread_pool.h"
#include "eval/kl_score.h"
#include "kernels/isa.h"
#include "model/model.h"

namespace bakestone {
namespace {

struct Wanted {
  std::vector<std::string> models, texts;
  int64_t tokens = 2000;  // of each text
  int64_t threads = 2;
};

int64_t Number(const char* flag, const char* text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc{} || *end != 0 || value < 1) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a number above 0, found {}", flag, text);
  }
  return value;
}

Wanted Parse(int argc, char** argv) {
  Wanted wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (!flag.starts_with("--")) {
      wanted.models.push_back(flag);
      continue;
    }
    if (i + 1 == argc) Throw(ErrorCode::kInvalidArgument, "{}: expected a value", flag);
    const char* value = argv[++i];
    if (flag == "--text") {
      wanted.texts.push_back(ReadFile(value));
    } else if (flag == "--tokens") {
      wanted.tokens = Number(argv[i - 1], value);
    } else if (flag == "--threads") {
      wanted.threads = Number(argv[i - 1], value);
    } else {
      Throw(ErrorCode::kInvalidArgument, "expected --text, --tokens or --threads, found {}", flag);
    }
  }
  if (wanted.models.size() < 2 || wanted.texts.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "expected ORIGINAL, at least one other model, and --text FILE");
  }
  return wanted;
}

nlohmann::ordered_json Compare(const Wanted& wanted) {
  ThreadPool pool(static_cast<int>(wanted.threads));
  const KernelTable& kernels = ChooseKernels(nullptr);
  std::vector<std::shared_ptr<const Model>> models;
  std::vector<Predictor> others;
  for (const std::string& path : wanted.models) {
    models.push_back(Model::Load(path, kernels, pool));
    if (models.size() > 1) others.push_back({.model = models.back().get()});
  }
  Exec exec(kernels, pool, Precision::kExact);
  KlOptions options{.max_tokens = wanted.tokens};
  const std::vector<KlScore> scores =
      ScoreKl({.model = models.front().get()}, others, exec, wanted.texts, options);
  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (size_t i = 0; i < scores.size(); ++i) {
    nlohmann::ordered_json file = {{"name", wanted.models[i + 1]},
                                   {"kl_mean", scores[i].MeanKl()},
                                   {"kl_p99", scores[i].QuantileKl(0.99)},
                                   {"flips", 1 - scores[i].Agreement()},
                                   {"perplexity", scores[i].Perplexity()}};
    if (i > 0) {
      const RatioEstimate ratio = BootstrapRatio(scores.front().kl, scores[i].kl);
      file["ratio"] = ratio.ratio;
      file["ratio_upper"] = ratio.upper;
    }
    files.push_back(std::move(file));
  }
  return {{"tokens", scores.front().tokens()},
          {"perplexity", scores.front().OriginalPerplexity()},
          {"files", files}};
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  try {
    fmt::print("{}\n", bakestone::Compare(bakestone::Parse(argc, argv)).dump());
    return 0;
  } catch (const bakestone::Error& error) {
    fmt::print(stderr, "kl_ratio_bench: {}\n", error.what());
    return 1;
  }
}
