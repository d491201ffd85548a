#include "engine/fair_queue.h"

#include <gtest/gtest.h>

#include "engine/step_cost.h"
#include "engine/test_engine.h"

namespace bakestone {
namespace {

using testing::SharedTestModel;
using Verdict = FairQueue::Verdict;

class FairQueueTest : public ::testing::Test {
 protected:
  uint64_t Add(const std::string& tenant, int64_t prompt_tokens,
               std::shared_ptr<const Adapter> adapter = nullptr, bool background = false) {
    GenerationRequest request;
    request.background = background;
    request.prompt.assign(static_cast<size_t>(prompt_tokens), testing::kTestFirstByte);
    request.max_tokens = 1;
    request.tenant = tenant;
    request.adapter = std::move(adapter);
    const Sequence::Setting setting = {.root = {}, .use_cache = false, .vocab_size = 100};
    queue_.Add(std::make_unique<Sequence>(++last_, std::move(request), SharedTestModel()->tokenizer,
                                          setting));
    return last_;
  }
  // The id of the next one, which is computed at once; 0: none.
  uint64_t Next(int64_t largest = 1 << 20) {
    auto next = queue_.Take({}, [&](const Sequence& one) {
      return one.prompt_size() <= largest ? Verdict::kFits : Verdict::kTooLarge;
    });
    if (!next) return 0;
    const uint64_t id = next->id();
    queue_.Computed(*next, next->prompt_size(), 1);
    queue_.Left(*next);
    return id;
  }
  FairQueue queue_;
  uint64_t last_ = 0;
};

TEST_F(FairQueueTest, OneTenantIsServedInOrder) {
  for (int i = 0; i < 3; ++i) Add("", 5);
  EXPECT_EQ(Next(), 1u);
  EXPECT_EQ(Next(), 2u);
  EXPECT_EQ(Next(), 3u);
  EXPECT_EQ(Next(), 0u);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(FairQueueTest, TenantsGetTheSameAndNewcomersComeSoon) {
  for (int i = 0; i < 100; ++i) Add("a", 10);
  for (int i = 0; i < 10; ++i) Next();
  const uint64_t b = Add("b", 10);
  const uint64_t first = Next(), second = Next();
  EXPECT_TRUE(first == b || second == b);
  // b was away: it has no claim on what it did not ask for, and is not behind either.
  for (int i = 0; i < 20; ++i) Next();
  std::vector<uint64_t> of_b;
  for (int i = 0; i < 10; ++i) of_b.push_back(Add("b", 10));
  int served = 0;
  for (int i = 0; i < 10; ++i) served += Next() >= of_b.front();
  EXPECT_EQ(served, 5);
}

TEST_F(FairQueueTest, AdaptersOfOneTenantShareItsPart) {
  const auto adapter = testing::MakeTestAdapter(SharedTestModel()->config, {Site::kQ}, 2, 1);
  for (int i = 0; i < 20; ++i) Add("a", 10);
  const uint64_t other = Add("a", 10, adapter);
  const uint64_t first = Next(), second = Next();
  EXPECT_TRUE(first == other || second == other);
}

TEST_F(FairQueueTest, BackgroundComesAfterAllOthers) {
  const uint64_t batch = Add("a", 10, nullptr, true);
  Add("b", 10, nullptr, true);
  for (int i = 0; i < 3; ++i) Add("a", 1000);
  const uint64_t last = Add("c", 10);
  EXPECT_EQ(queue_.ActiveTenantsLike(*queue_.First()), 2);
  for (int i = 0; i < 4; ++i) EXPECT_GT(Next(), batch + 1);
  EXPECT_EQ(Next(), batch);  // that a asked for much else says nothing here
  EXPECT_EQ(Next(), batch + 1);
  EXPECT_EQ(Next(), 0u);
  EXPECT_EQ(last, batch + 5);
}

TEST_F(FairQueueTest, LargeRequestIsPassedOverButNotForEver) {
  const uint64_t large = Add("a", 1000);
  for (int i = 0; i < 2 * FairQueue::kMostPasses; ++i) Add("a", 10);
  int passed = 0;
  while (Next(100) != 0) ++passed;
  EXPECT_EQ(passed, FairQueue::kMostPasses);
  EXPECT_EQ(Next(), large);
  EXPECT_EQ(Next(100), large + 1 + FairQueue::kMostPasses);
}

TEST_F(FairQueueTest, RemovedOnesAreGone) {
  for (int i = 0; i < 5; ++i) Add(i % 2 ? "a" : "b", 10);
  EXPECT_EQ(queue_.ActiveTenantsLike(*queue_.First()), 2);
  EXPECT_EQ(queue_.Remove([](const Sequence& one) { return one.request().tenant == "b"; }).size(),
            3u);
  EXPECT_EQ(queue_.ActiveTenantsLike(*queue_.First()), 1);
  EXPECT_EQ(Next(), 2u);
  EXPECT_EQ(Next(), 4u);
  EXPECT_TRUE(queue_.empty());
}

TEST(StepCost, FarChunksAreSmaller) {
  const StepCost cost({.step = 0.01, .row = 1e-4, .output = 1e-4, .key = 1e-8});
  EXPECT_NEAR(static_cast<double>(cost.RowsWithin(0.01, 0)), 99, 2);
  EXPECT_NEAR(static_cast<double>(cost.RowsWithin(0.01, 30'000)), 25, 1);
  for (const int64_t position : {0, 100, 30'000}) {
    StepSize most, more;
    most.Add(position, cost.RowsWithin(0.01, position), 0);
    more.Add(position, cost.RowsWithin(0.01, position) + 1, 0);
    EXPECT_LE(cost.Predict(most), 0.02 + 1e-9);
    EXPECT_GT(cost.Predict(more), 0.02);
  }
  EXPECT_EQ(StepCost().RowsWithin(1, 0), 0);
}

TEST(StepCost, FollowsWhatStepsTake) {
  StepCost cost({.step = 0.01, .row = 1e-4, .output = 0, .key = 0});
  StepSize size;
  size.Add(0, 100, 0);
  for (int i = 0; i < 60; ++i) cost.Learn(size, 0.06);
  EXPECT_NEAR(cost.Predict(size), 0.06, 1e-4);
  StepCost blank;
  EXPECT_FALSE(blank.Known());
  blank.Learn(size, 0.06);
  EXPECT_NEAR(blank.Predict(size), 0.06, 1e-9);
}

}  // namespace
}  // namespace bakestone
