#include "train/train_speed.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/isa.h"
#include "engine/test_engine.h"

namespace bakestone {
namespace {

using testing::SharedTestModel;

// Two layers: q, o 64 x 64; k, v 32 x 64; gate, up 128 x 64; down 64 x 128.
constexpr double kLinears = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64);
constexpr double kSides = 2 * (2 * (64 + 64) + 2 * (32 + 64) + 3 * (128 + 64));

TEST(TrainFlop, CountsWhatAStepOfPairsNeeds) {
  const auto model = SharedTestModel();
  const TrainLayout layout = TrainLayout::Make(model->config, {.rank = 4});
  // Documents of 4, 4 and 2: 7 rows with a loss, 10 + 10 + 3 pairs of query and key.
  const double head = static_cast<double>(model->weights->head().n()) * 64;
  const double macs = 10 * (2 * kLinears + 3 * 4 * kSides) + 2 * 7 * head + 6 * 23 * 2 * 64;
  EXPECT_EQ(TrainFlop(*model, layout, {.rows = 10, .document = 4}), 2 * macs);
}

TEST(TrainFlop, CountsTheGradientsOfWholeMatrices) {
  const auto model = SharedTestModel();
  const TrainLayout layout = TrainLayout::Make(model->config, {});
  const double head = static_cast<double>(model->weights->head().n()) * 64;
  const double macs = 8 * 3 * kLinears + 3 * 7 * head + 6 * 36 * 2 * 64;
  EXPECT_EQ(TrainFlop(*model, layout, {.rows = 8, .document = 8}), 2 * macs);
}

TEST(MeasureTraining, TimesEachStepAndItsKindsOfWork) {
  ThreadPool pool(2);
  const auto model = SharedTestModel();
  for (const int64_t rank : {0, 4}) {
    const TrainSpeed speed =
        MeasureTraining(*model, ChooseKernels(nullptr), pool,
                        {.rows = 24, .document = 16, .rank = rank, .steps = 3});
    ASSERT_EQ(speed.step_seconds.size(), 3u);
    const double total = std::accumulate(speed.step_seconds.begin(), speed.step_seconds.end(), 0.0);
    const TrainPhases& phases = speed.phases;
    for (const double part :
         {phases.products, phases.attention, phases.rows, phases.head, speed.optimizer}) {
      EXPECT_GT(part, 0);
      EXPECT_LT(part, total);
    }
    EXPECT_GT(speed.pass_bytes, 0);
  }
}

TEST(TrainFlop, ChatsAreOfManyLengthsAndLearnedInPart) {
  const TrainSpeedOptions chats = {.rows = 8192, .chats = true};
  const std::vector<int64_t> documents = DocumentsOf(chats);
  const int64_t all = std::accumulate(documents.begin(), documents.end(), int64_t{0});
  EXPECT_GE(all, 8192);
  EXPECT_LT(all - documents.back(), 8192);
  EXPECT_LT(*std::min_element(documents.begin(), documents.end()), 40);
  EXPECT_GT(*std::max_element(documents.begin(), documents.end()), 700);
  const auto model = SharedTestModel();
  const TrainLayout layout = TrainLayout::Make(model->config, {.rank = 4});
  double loss_rows = 0, seen = 0;
  for (const int64_t length : documents) {
    loss_rows += std::floor(0.3 * static_cast<double>(length));
    seen += static_cast<double>(length * (length + 1) / 2);
  }
  const double head = static_cast<double>(model->weights->head().n()) * 64;
  const double macs = static_cast<double>(all) * (2 * kLinears + 3 * 4 * kSides) +
                      2 * loss_rows * head + 6 * seen * 2 * 64;
  EXPECT_NEAR(TrainFlop(*model, layout, chats), 2 * macs, 1e-9 * macs);
}

TEST(MeasureTraining, RefusesSizesThatMeanNothing) {
  ThreadPool pool(1);
  const auto model = SharedTestModel();
  const int64_t context = model->config.context_length;
  for (const TrainSpeedOptions& options : {TrainSpeedOptions{.rows = 1},
                                           {.document = 1},
                                           {.steps = 0},
                                           {.rows = context + 1, .document = context + 1}}) {
    EXPECT_THROW(MeasureTraining(*model, ChooseKernels(nullptr), pool, options), Error);
  }
}

TEST(TrainProductLimit, IsARate) {
  ThreadPool pool(1);
  EXPECT_GT(TrainProductLimit(ChooseKernels(nullptr).train, pool), 1e8);
}

}  // namespace
}  // namespace bakestone
