#include "train/trend_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bakestone {
namespace {

using ::testing::HasSubstr;

StepReport ReportOf(int64_t step, double loss, double norm) {
  StepReport report{};
  report.step = step;
  report.loss = loss;
  report.gradient_norm = norm;
  return report;
}

TEST(TrendWatch, IsSilentWhileALossWanders) {
  TrendWatch watch;
  for (int64_t step = 1; step <= 100; ++step) {
    EXPECT_EQ(
        watch.Look(ReportOf(
            step, 2.0 + static_cast<double>(step % 7) * 0.05 - 0.005 * static_cast<double>(step),
            1 + static_cast<double>(step % 3))),
        "");
  }
}

TEST(TrendWatch, NamesALeapOfTheLoss) {
  TrendWatch watch;
  for (int64_t step = 1; step <= 30; ++step) {
    watch.Look(ReportOf(step, 2.0 + static_cast<double>(step % 2) * 0.1, 1));
  }
  EXPECT_THAT(watch.Look(ReportOf(31, 5, 1)),
              HasSubstr("step 31: the loss leapt from about 2.05 to 5.00"));
}

TEST(TrendWatch, NamesGradientsThatGrow) {
  TrendWatch watch;
  for (int64_t step = 1; step <= 30; ++step) watch.Look(ReportOf(step, 2, 1));
  EXPECT_EQ(watch.Look(ReportOf(31, 2, 9)), "");
  EXPECT_THAT(watch.Look(ReportOf(32, 2, 90)), HasSubstr("the gradient's norm is 90.0, ten times"));
}

TEST(TrendWatch, NamesAGradientOfZeroOnce) {
  TrendWatch watch;
  EXPECT_EQ(watch.Look(ReportOf(1, 9, 3)), "");
  EXPECT_THAT(watch.Look(ReportOf(2, 9, 0)), HasSubstr("step 2: the gradient is zero"));
  EXPECT_EQ(watch.Look(ReportOf(3, 9, 0)), "");
  EXPECT_EQ(watch.Look(ReportOf(4, 9, 2)), "");
  EXPECT_THAT(watch.Look(ReportOf(5, 9, 0)), HasSubstr("step 5"));
}

}  // namespace
}  // namespace bakestone
