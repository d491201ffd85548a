// KL between models, against the plain formula in double; and the bootstrap of its ratio.
#include "eval/kl_score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/isa.h"
#include "model/test_model.h"

namespace bakestone {
namespace {

std::shared_ptr<const Model> LoadTestModel(uint64_t seed, ThreadPool& pool) {
  const auto path =
      std::filesystem::temp_directory_path() /
      ("bakestone-kl-" + std::to_string(::getpid()) + "-" + std::to_string(seed) + ".gguf");
  testing::TestModelOptions options;
  options.seed = seed;
  testing::WriteTestModel(path, options);
  auto model = Model::Load(path, ChooseKernels(nullptr), pool);
  std::filesystem::remove(path);
  return model;
}

// Log-probabilities of every row, in double.
std::vector<std::vector<double>> LogProbabilities(const Model& model, Exec& exec,
                                                  const std::vector<int32_t>& tokens) {
  const auto rows = static_cast<int32_t>(tokens.size());
  const int64_t dim = model.config.hidden_dim, vocabulary = model.config.vocab_size;
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const SequenceRun sequence{0, rows, nullptr};
  std::vector<float> hidden(static_cast<size_t>(rows * dim)),
      logits(static_cast<size_t>(rows * vocabulary));
  model.decoder->Forward(exec, {tokens, positions, {&sequence, 1}, {}, positions},
                         {hidden.data(), rows, dim});
  model.decoder->Logits(exec, {hidden.data(), rows, dim}, {logits.data(), rows, vocabulary});
  std::vector<std::vector<double>> out;
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = logits.data() + row * vocabulary;
    double most = x[0], sum = 0;
    for (int64_t i = 1; i < vocabulary; ++i) most = std::max(most, static_cast<double>(x[i]));
    for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(static_cast<double>(x[i]) - most);
    out.emplace_back();
    for (int64_t i = 0; i < vocabulary; ++i) {
      out.back().push_back(static_cast<double>(x[i]) - most - std::log(sum));
    }
  }
  return out;
}

TEST(KlScore, EqualsThePlainFormula) {
  ThreadPool pool(2);
  Exec exec(ChooseKernels(nullptr), pool, Precision::kExact);
  const auto a = LoadTestModel(1, pool), b = LoadTestModel(2, pool);
  const std::string text = "the baker and the other one: they read what is there";
  const std::vector<int32_t> tokens = a->tokenizer.Encode(text, {.add_special = false});
  const auto p = LogProbabilities(*a, exec, tokens), q = LogProbabilities(*b, exec, tokens);
  const std::vector<Predictor> others = {{b.get(), nullptr}, {a.get(), nullptr}};
  const auto scores = ScoreKl({a.get(), nullptr}, others, exec, std::vector<std::string>{text}, {});
  ASSERT_EQ(scores[0].tokens(), static_cast<int64_t>(tokens.size()));
  double nats = 0;
  for (size_t row = 0; row < tokens.size(); ++row) {
    double kl = 0;
    for (size_t i = 0; i < p[row].size(); ++i) kl += std::exp(p[row][i]) * (p[row][i] - q[row][i]);
    EXPECT_NEAR(scores[0].kl[row], kl, 1e-5 + 1e-5 * kl);
    const auto best = [](const std::vector<double>& x) {
      return std::max_element(x.begin(), x.end()) - x.begin();
    };
    EXPECT_EQ(scores[0].same[row] == 1, best(p[row]) == best(q[row]));
    if (row + 1 < tokens.size()) nats -= q[row][static_cast<size_t>(tokens[row + 1])];
  }
  EXPECT_NEAR(scores[0].Perplexity(), std::exp(nats / static_cast<double>(tokens.size() - 1)),
              1e-3);
  EXPECT_LT(scores[1].MeanKl(), 1e-7);  // itself
  EXPECT_EQ(scores[1].Agreement(), 1.0);
}

TEST(KlScore, AdaptersCount) {
  ThreadPool pool(2);
  Exec exec(ChooseKernels(nullptr), pool, Precision::kExact);
  const auto model = LoadTestModel(3, pool);
  const auto adapter = testing::MakeTestAdapter(model->config, {Site::kQ, Site::kDown}, 2, 9);
  const Predictor other = {model.get(), adapter.get()};
  const auto score = ScoreKl({model.get(), nullptr}, {&other, 1}, exec,
                             std::vector<std::string>{"the hat"}, {})[0];
  EXPECT_GT(score.MeanKl(), 1e-4);
}

TEST(BootstrapRatio, BoundsTheRatioOfMeans) {
  std::vector<float> a(20000), b(20000);
  Rng rng(5, 0);
  for (size_t i = 0; i < a.size(); ++i) {
    const float common = std::abs(rng.Normal());
    a[i] = common * 0.9f + 0.1f * std::abs(rng.Normal());
    b[i] = common + 0.1f * std::abs(rng.Normal());
  }
  const RatioEstimate estimate = BootstrapRatio(a, b);
  const double exact =
      std::accumulate(a.begin(), a.end(), 0.0) / std::accumulate(b.begin(), b.end(), 0.0);
  EXPECT_NEAR(estimate.ratio, exact, 1e-9);
  EXPECT_GT(estimate.upper, estimate.ratio);
  EXPECT_LT(estimate.upper, estimate.ratio + 0.01);
  EXPECT_EQ(BootstrapRatio(a, a).upper, 1.0);
}

}  // namespace
}  // namespace bakestone
