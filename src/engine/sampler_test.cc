#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "engine/portable_math.h"

namespace bakestone {
namespace {

int32_t Draw(std::vector<float> logits, const SamplingParams& params, int64_t position = 0,
             std::vector<int32_t> prompt = {}) {
  const auto vocab = static_cast<int32_t>(logits.size());
  return Sampler(params, vocab, prompt).Sample(logits, position);
}

// How often each id is drawn in n draws at different positions.
std::vector<double> Shares(const std::vector<float>& logits, const SamplingParams& params, int n) {
  std::vector<double> shares(logits.size());
  for (int i = 0; i < n; ++i) shares[Draw(logits, params, i)] += 1.0 / n;
  return shares;
}

TEST(PortableMath, ExpAgreesWithLibm) {
  Rng rng(1, 0);
  for (int i = 0; i < 100'000; ++i) {
    const double x = -rng.Uniform() * 700;
    EXPECT_NEAR(PortableExp(x) / std::exp(x), 1.0, 2e-15) << x;
  }
  EXPECT_EQ(PortableExp(0), 1.0);
  EXPECT_EQ(PortableExp(-1e300), 0.0);
  EXPECT_EQ(PortableExp(-INFINITY), 0.0);
  EXPECT_TRUE(std::isnan(PortableExp(NAN)));
}

TEST(PortableMath, LogAgreesWithLibm) {
  Rng rng(2, 0);
  for (int i = 0; i < 100'000; ++i) {
    const double x = std::exp((rng.Uniform() - 0.5) * 200);
    EXPECT_NEAR(PortableLog(x), std::log(x), 1e-15 * std::max(1.0, std::abs(std::log(x)))) << x;
  }
  EXPECT_EQ(PortableLog(1), 0.0);
}

TEST(PortableMath, BitsAreTheSameEverywhere) {
  // From tools/portable_math_golden.py. A machine that differs would give other answers to a
  // prompt.
  uint64_t mix = 0;
  for (int i = 0; i < 1000; ++i) {
    const double e = PortableExp(-0.037 * i), l = PortableLog(1 + 0.37 * i);
    uint64_t a, b;
    std::memcpy(&a, &e, 8), std::memcpy(&b, &l, 8);
    mix = (mix ^ a) * 0x100000001b3ULL;
    mix = (mix ^ b) * 0x100000001b3ULL;
  }
  EXPECT_EQ(mix, 8447253250661424054ULL);
}

TEST(Sampler, GreedyTakesTheLargestAndOfEqualsTheLowestId) {
  EXPECT_EQ(Draw({1, 3, 3, 2}, {}), 1);
  EXPECT_EQ(Draw({-1, -1, -1}, {}), 0);
}

TEST(Sampler, PaddingRowsAreNeverSampled) {
  std::vector<float> logits = {0, 1, 2, 100, 100};
  EXPECT_EQ(Sampler({}, 3, {}).Sample(logits, 0), 2);
  SamplingParams hot{.temperature = 50};
  for (int i = 0; i < 1000; ++i) EXPECT_LT(Sampler(hot, 3, {}).Sample(logits, i), 3);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.0f, 0.0f};
  const double temperature = 0.8;
  double sum = 0;
  for (float l : logits) sum += std::exp(l / temperature);
  const int n = 40'000;
  const auto shares = Shares(logits, {.temperature = temperature, .seed = 7}, n);
  double chi2 = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp(logits[i] / temperature) / sum;
    chi2 += n * (shares[i] - p) * (shares[i] - p) / p;
  }
  EXPECT_LT(chi2, 18.5);  // 4 degrees of freedom: exceeded once in 1,000
}

TEST(Sampler, TopKLeavesTheLikeliestK) {
  const auto shares = Shares({1, 5, 4, 5, 0}, {.temperature = 3, .top_k = 2, .seed = 1}, 2000);
  EXPECT_NEAR(shares[1], 0.5, 0.05);
  EXPECT_NEAR(shares[3], 0.5, 0.05);
  EXPECT_EQ(shares[0] + shares[2] + shares[4], 0);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesP) {
  // Probabilities 0.5, 0.3, 0.15, 0.05.
  const std::vector<float> logits = {std::log(0.15f), std::log(0.5f), std::log(0.05f),
                                     std::log(0.3f)};
  auto shares = Shares(logits, {.temperature = 1, .top_p = 0.7, .seed = 2}, 8000);
  EXPECT_NEAR(shares[1], 0.5 / 0.8, 0.03);
  EXPECT_NEAR(shares[3], 0.3 / 0.8, 0.03);
  EXPECT_EQ(shares[0] + shares[2], 0);
  shares = Shares(logits, {.temperature = 1, .top_p = 0.01, .seed = 2}, 100);
  EXPECT_NEAR(shares[1], 1, 1e-9);
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  const std::vector<float> logits = {std::log(0.15f), std::log(0.5f), std::log(0.05f),
                                     std::log(0.3f)};
  const auto shares = Shares(logits, {.temperature = 1, .min_p = 0.5, .seed = 2}, 4000);
  EXPECT_EQ(shares[0] + shares[2], 0);
  EXPECT_NEAR(shares[3], 0.3 / 0.8, 0.04);
}

TEST(Sampler, TheDrawDependsOnSeedStreamAndPositionOnly) {
  const std::vector<float> flat(64, 0.0f);
  SamplingParams params{.temperature = 1, .seed = 11};
  EXPECT_EQ(Draw(flat, params, 5), Draw(flat, params, 5));
  int same_seed = 0, same_stream = 0, same_position = 0;
  for (int i = 0; i < 200; ++i) {
    const int32_t a = Draw(flat, params, i);
    SamplingParams other_seed = params, other_stream = params;
    other_seed.seed = 12;
    other_stream.stream = 1;
    same_seed += a == Draw(flat, other_seed, i);
    same_stream += a == Draw(flat, other_stream, i);
    same_position += a == Draw(flat, params, i + 1000);
  }
  EXPECT_LT(same_seed, 20);
  EXPECT_LT(same_stream, 20);
  EXPECT_LT(same_position, 20);
}

TEST(Sampler, PenaltiesAreExact) {
  std::vector<float> logits = {2, 2, -2, 2};
  SamplingParams params{
      .repetition_penalty = 2, .presence_penalty = 0.5, .frequency_penalty = 0.25};
  Sampler sampler(params, 4, std::vector<int32_t>{0, 2});
  sampler.Accept(1);
  sampler.Accept(1);
  EXPECT_EQ(sampler.Sample(logits, 0), 3);
  EXPECT_EQ(logits, (std::vector<float>{1, 0, -4, 2}));  // 1: 2 / 2 - 0.5 - 2 * 0.25
}

TEST(Sampler, LogitBiasForcesAndForbids) {
  EXPECT_EQ(Draw({0, 1, 2}, {.logit_bias = {{0, 100.0f}}}), 0);
  EXPECT_EQ(Draw({0, 1, 2}, {.logit_bias = {{2, -100.0f}}}), 1);
}

TEST(Sampler, ForbiddenTokensAreNeverDrawn) {
  const std::vector<float> logits = {5, 4, 3, 2, 1};
  const std::vector<uint32_t> legal = {0b11100};
  const std::vector<int32_t> banned = {2};
  std::vector<float> row = logits;
  EXPECT_EQ(Sampler({}, 5, {}).Sample(row, 0, {}, {.banned = banned}), 0);
  row = logits;
  EXPECT_EQ(Sampler({}, 5, {}).Sample(row, 0, {}, {.banned = banned, .legal = legal}), 3);
  row = logits;
  EXPECT_EQ(Sampler({}, 5, {}).Sample(row, 0, {},
                                      {.banned = banned, .unused = std::vector<int32_t>{0, 1, 7}}),
            3);
  const SamplingParams sharp{.temperature = 2, .top_k = 2, .logit_bias = {{0, 100}}};
  int counts[5] = {};
  for (int i = 0; i < 1000; ++i) {
    row = logits;
    ++counts[Sampler(sharp, 5, {}).Sample(row, i, {}, {.legal = legal})];
  }
  EXPECT_EQ(counts[0] + counts[1] + counts[4], 0);  // of the legal ones the two likeliest
  EXPECT_GT(counts[2], counts[3]);
  EXPECT_GT(counts[3], 0);
  row = logits;
  const std::vector<uint32_t> none = {0};
  EXPECT_THROW(Sampler({}, 5, {}).Sample(row, 0, {}, {.legal = none}), Error);
}

TEST(Sampler, LogitThatIsNotFiniteIsAnError) {
  EXPECT_THROW(Draw({0, NAN, 1}, {}), Error);
  EXPECT_THROW(Draw({0, INFINITY, 1}, {.temperature = 1}), Error);
}

TEST(Sampler, ExtremeTemperaturesStayInRange) {
  EXPECT_EQ(Draw({0, 1e30f, -1e30f}, {.temperature = 1e-9, .seed = 3}), 1);
  const int32_t id = Draw({3e38f, -3e38f, 0}, {.temperature = 100, .top_p = 0.5, .seed = 3});
  EXPECT_EQ(id, 0);
}

TEST(Sampler, ParametersOutOfRangeAreNamed) {
  const auto message = [](const SamplingParams& params) -> std::string {
    try {
      CheckSamplingParams(params, 10);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message({.temperature = -1}), ::testing::HasSubstr("temperature"));
  EXPECT_THAT(message({.temperature = NAN}), ::testing::HasSubstr("temperature"));
  EXPECT_THAT(message({.top_k = -1}), ::testing::HasSubstr("top_k"));
  EXPECT_THAT(message({.top_p = 0}), ::testing::HasSubstr("top_p"));
  EXPECT_THAT(message({.min_p = 1.5}), ::testing::HasSubstr("min_p"));
  EXPECT_THAT(message({.repetition_penalty = 0}), ::testing::HasSubstr("repetition_penalty"));
  EXPECT_THAT(message({.logit_bias = {{10, 1.0f}}}), ::testing::HasSubstr("logit_bias"));
  EXPECT_THAT(message({.logit_bias = {{1, 1.0f}, {1, 2.0f}}}), ::testing::HasSubstr("twice"));
  EXPECT_EQ(message({.temperature = 1, .top_p = 0.9}), "");
}

// A token that turns out not to be legal takes nothing from what the others are drawn with.
TEST(Sampler, DrawsAgainAsIfATokenHadNeverBeenLegal) {
  const SamplingParams params{.temperature = 1, .seed = 5};
  const Sampler sampler(params, 3, {});
  const int32_t illegal[] = {0};
  constexpr int kDraws = 4000;
  int of_one = 0;
  for (int position = 0; position < kDraws; ++position) {
    std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
    int32_t token = sampler.Sample(logits, position);
    if (token == 0) token = sampler.SampleAgain(logits, position, {.banned = illegal}, 1);
    ASSERT_NE(token, 0);
    of_one += token == 1;
  }
  EXPECT_NEAR(of_one / double{kDraws}, 0.6, 0.03);
}

TEST(Logprobs, AreNormalizedAndOrdered) {
  const std::vector<float> logits = {1, 4, 4, -3, 50};  // the last is padding
  const RowLogprobs all = LogprobsOf(logits, 4, 3, 10);
  ASSERT_EQ(all.top.size(), 4u);
  double sum = 0;
  for (const auto& entry : all.top) sum += std::exp(entry.logprob);
  EXPECT_NEAR(sum, 1, 1e-6);
  EXPECT_EQ(all.top[0].token, 1);
  EXPECT_EQ(all.top[1].token, 2);
  EXPECT_EQ(all.top[3].token, 3);
  EXPECT_EQ(all.logprob, all.top[3].logprob);  // the very same float
}

}  // namespace
}  // namespace bakestone
