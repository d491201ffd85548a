#include "engine/draft_policy.h"

#include <vector>

#include <gtest/gtest.h>

namespace bakestone {
namespace {

// Decodes `tokens` tokens where a step of r rows takes cost(r) and each proposed token is right
// with the same chance; returns the time over that of plain decoding.
template <class Cost>
double RelativeTime(double chance, int64_t tokens, const Cost& cost,
                    DraftKind kind = DraftKind::kMatch4) {
  DraftPolicy policy;
  Acceptance acceptance;
  double seconds = 0, luck = 0;
  int64_t produced = 0;
  while (produced < tokens) {
    DraftPolicy::Candidate candidate{.chance = acceptance.Chance(kind, nullptr), .available = 31};
    policy.Choose({&candidate, 1}, 1, 100);
    int64_t right = 0;
    for (; right < candidate.keep; ++right) {  // so many right ones of a hundred, evenly spread
      luck += chance;
      if (luck < 1) break;
      luck -= 1;
    }
    if (candidate.keep > 0) acceptance.Learn(kind, right, candidate.keep);
    const double step = cost(1 + candidate.keep);
    seconds += step;
    produced += right + 1;
    policy.LearnStep(1, 1 + candidate.keep, right + 1, step, 0);
  }
  return seconds / (static_cast<double>(produced) * cost(1));
}

double Cheap(int64_t rows) { return 0.010 + 0.0005 * static_cast<double>(rows - 1); }
double Dear(int64_t rows) { return 0.010 * static_cast<double>(rows); }

TEST(DraftPolicy, GainsWhereProposalsComeTrue) {
  EXPECT_LT(RelativeTime(0.98, 300, Cheap), 0.25);
  EXPECT_LT(RelativeTime(0.90, 300, Cheap), 0.40);
  EXPECT_LT(RelativeTime(0.60, 300, Cheap), 0.85);
}

TEST(DraftPolicy, LosesLittleWhereTheyDoNot) {
  for (const int64_t tokens : {100, 1000}) {
    for (const double chance : {0.0, 0.01, 0.05, 0.3, 0.9, 1.0}) {
      EXPECT_LT(RelativeTime(chance, tokens, Dear), 1.05) << chance;
      EXPECT_LT(RelativeTime(chance, tokens, Cheap), 1.05) << chance;
    }
  }
}

TEST(DraftPolicy, ProposesNothingBeforeAPlainStepWasMeasured) {
  DraftPolicy policy;
  DraftPolicy::Candidate candidate{.chance = 0.99, .available = 10};
  policy.Choose({&candidate, 1}, 1, 100);
  EXPECT_EQ(candidate.keep, 0);
  for (int i = 0; i < 3; ++i) policy.LearnStep(1, 1, 1, 0.01, 0);
  policy.Choose({&candidate, 1}, 1, 100);
  EXPECT_GT(candidate.keep, 0);
  policy.Choose({&candidate, 1}, 2, 100);  // two sequences were never measured
  EXPECT_EQ(candidate.keep, 0);
}

TEST(DraftPolicy, SpendsRowsOnTheLikeliestTokensAndKeepsTheLimit) {
  DraftPolicy policy;
  for (int i = 0; i < 50; ++i) policy.LearnStep(3, 3, 3, 0.01, 0);
  std::vector<DraftPolicy::Candidate> candidates = {{.chance = 0.3, .available = 31},
                                                    {.chance = 0.99, .available = 31},
                                                    {.chance = 0.9, .available = 2}};
  policy.Choose(candidates, 3, 12);
  EXPECT_LE(candidates[0].keep + candidates[1].keep + candidates[2].keep, 12);
  EXPECT_GT(candidates[1].keep, candidates[0].keep);
  EXPECT_LE(candidates[2].keep, 2);
}

TEST(DraftPolicy, ProposesLessWhereRowsAreDear) {
  const auto kept = [](int64_t sequences, double row_seconds) {
    DraftPolicy policy;
    for (int i = 0; i < 50; ++i) {
      policy.LearnStep(sequences, sequences, sequences, 0.01, 0);
      policy.LearnStep(sequences, sequences + 40, sequences + 40, 0.01 + 40 * row_seconds, 0);
    }
    std::vector<DraftPolicy::Candidate> candidates(static_cast<size_t>(sequences),
                                                   {.chance = 0.7, .available = 31});
    policy.Choose(candidates, sequences, 200);
    int64_t sum = 0;
    for (const auto& candidate : candidates) sum += candidate.keep;
    return sum;
  };
  EXPECT_GT(kept(1, 0.0002), kept(1, 0.002));
  EXPECT_EQ(kept(16, 0.01 / 16 * 1.5), 0);  // rows that cost more than they can bring
}

TEST(StepCosts, InterpolatesBetweenWhatWasMeasured) {
  StepCosts costs;
  costs.Learn(1, 1.0);
  costs.Learn(9, 5.0);
  EXPECT_DOUBLE_EQ(costs.Seconds(5), 3.0);
  EXPECT_GT(costs.Seconds(20), 5.0);
  costs.Learn(1, 100.0);  // a disturbed step counts as twice the usual at most
  EXPECT_DOUBLE_EQ(costs.Seconds(1), 1.25);
  for (int i = 0; i < 600; ++i) costs.Learn(1, 1.0);
  EXPECT_FALSE(costs.Known(9));  // long ago
}

TEST(Acceptance, JudgesOnlyTokensUpToTheFirstWrongOne) {
  Acceptance wrong, right, prior;
  for (int i = 0; i < 20; ++i) {
    wrong.Learn(DraftKind::kMatch4, 0, 30);
    right.Learn(DraftKind::kMatch4, 30, 30);
  }
  EXPECT_LT(wrong.Chance(DraftKind::kMatch4, nullptr), 0.15);
  EXPECT_GT(right.Chance(DraftKind::kMatch4, nullptr), 0.95);
  EXPECT_EQ(prior.Chance(DraftKind::kMatch2, &right), right.Chance(DraftKind::kMatch2, nullptr));
  EXPECT_LT(prior.Chance(DraftKind::kMatch4, &wrong), prior.Chance(DraftKind::kMatch4, nullptr));
}

}  // namespace
}  // namespace bakestone
