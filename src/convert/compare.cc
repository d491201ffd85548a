#include "convert/compare.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "model/model.h"
#include "model/model_file.h"

namespace bakestone {

std::string CompareTable(const std::string& original_name, int64_t original_bytes,
                         const std::vector<Compared>& others) {
  const auto megabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  std::string text = fmt::format("{:<28} {:>11} {:>11} {:>10} {:>12} {:>11}\n", "", "size",
                                 "KL mean", "KL p99", "same top-1", "perplexity");
  const double perplexity = others.empty() ? 0 : others.front().score.OriginalPerplexity();
  text += fmt::format("{:<28} {:>8.1f} MB {:>11} {:>10} {:>12} {:>11.3f}\n", original_name,
                      megabytes(original_bytes), "", "", "", perplexity);
  for (const Compared& other : others) {
    text +=
        fmt::format("{:<28} {:>8.1f} MB {:>11.5f} {:>10.4f} {:>10.2f} % {:>11.3f}\n", other.name,
                    megabytes(other.bytes), other.score.MeanKl(), other.score.QuantileKl(0.99),
                    100 * other.score.Agreement(), other.score.Perplexity());
  }
  return text;
}

nlohmann::ordered_json CompareToJson(const std::string& original_name, int64_t original_bytes,
                                     const std::vector<Compared>& others) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Compared& other : others) {
    rows.push_back({{"name", other.name},
                    {"bytes", other.bytes},
                    {"tokens", other.score.tokens()},
                    {"kl_mean", other.score.MeanKl()},
                    {"kl_p99", other.score.QuantileKl(0.99)},
                    {"same_top_1", other.score.Agreement()},
                    {"perplexity", other.score.Perplexity()}});
  }
  const double perplexity = others.empty() ? 0 : others.front().score.OriginalPerplexity();
  return {{"original",
           {{"name", original_name}, {"bytes", original_bytes}, {"perplexity", perplexity}}},
          {"others", rows}};
}

std::vector<Compared> CompareModels(const Contender& original, const std::vector<Contender>& others,
                                    const std::vector<std::string>& texts,
                                    const KernelTable& kernels, ThreadPool& pool,
                                    const KlOptions& options) {
  const auto first = Model::Load(original.path, kernels, pool);
  const auto adapter_of = [](const Contender& one, const Model& model) {
    return one.adapter != nullptr ? Adapter::Load(*one.adapter, model.config) : nullptr;
  };
  const auto first_adapter = adapter_of(original, *first);
  Exec exec(kernels, pool, Precision::kExact);
  std::vector<Compared> compared;
  for (const Contender& other : others) {
    const auto model = other.path == original.path ? first : Model::Load(other.path, kernels, pool);
    const auto adapter = adapter_of(other, *model);
    const Predictor predictor{.model = model.get(), .adapter = adapter.get()};
    std::vector<KlScore> scores = ScoreKl({.model = first.get(), .adapter = first_adapter.get()},
                                          {&predictor, 1}, exec, texts, options);
    compared.push_back({.name = other.name,
                        .bytes = ModelFile::Open(other.path).bytes(),
                        .score = std::move(scores.front())});
  }
  return compared;
}

}  // namespace bakestone
