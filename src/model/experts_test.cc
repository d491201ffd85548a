#include "model/experts.h"

#include <gtest/gtest.h>

#include <array>

namespace bakestone {
namespace {

TEST(Experts, RowsChooseTheGreatestAndOfEqualOnesTheFirst) {
  const std::array<float, 8> logits = {1, 3, 3, 0, /**/ 2, 2, 2, 2};
  const auto chosen =
      ChooseExperts({.experts = 4, .used = 2}, {}, DenseView<const float>(logits.data(), 2, 4));
  EXPECT_EQ(chosen[0].rows, std::vector<int32_t>{1});
  EXPECT_EQ(chosen[1].rows, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(chosen[2].rows, std::vector<int32_t>{0});
  EXPECT_TRUE(chosen[3].rows.empty());
  EXPECT_FLOAT_EQ(chosen[1].shares[0], 0.5f);
}

TEST(Experts, SharesAreOfTheChosenOrOfAll) {
  const std::array<float, 3> logits = {0, 0, 0};
  const MatrixView<const float> view = DenseView<const float>(logits.data(), 1, 3);
  EXPECT_FLOAT_EQ(ChooseExperts({.experts = 3, .used = 2}, {}, view)[0].shares[0], 1.0f / 2);
  EXPECT_FLOAT_EQ(
      ChooseExperts({.experts = 3, .used = 2, .renormalize = false}, {}, view)[0].shares[0],
      1.0f / 3);
  EXPECT_FLOAT_EQ(ChooseExperts({.experts = 3, .used = 2, .scale = 3}, {}, view)[0].shares[0],
                  3.0f / 2);
}

TEST(Experts, BiasChoosesButDoesNotCount) {
  const std::array<float, 3> logits = {0, 1, 2}, bias = {9, 0, 0};
  const RouterConfig router = {
      .experts = 3, .used = 1, .score = RouterScore::kSigmoid, .renormalize = false};
  const auto chosen = ChooseExperts(router, bias, DenseView<const float>(logits.data(), 1, 3));
  EXPECT_EQ(chosen[0].rows, std::vector<int32_t>{0});
  EXPECT_FLOAT_EQ(chosen[0].shares[0], 0.5f);
}

TEST(Experts, OnlyTheBestGroupsAreChosenFrom) {
  const std::array<float, 6> logits = {3, -9, -9, /**/ 2, 2, 1};
  const MatrixView<const float> view = DenseView<const float>(logits.data(), 1, 6);
  RouterConfig router = {.experts = 6, .used = 2, .groups = 2, .used_groups = 1};
  EXPECT_EQ(ChooseExperts(router, {}, view)[0].rows.size(), 1u);  // by its best
  EXPECT_TRUE(ChooseExperts(router, {}, view)[3].rows.empty());
  router.groups_by_two = true;
  EXPECT_TRUE(ChooseExperts(router, {}, view)[0].rows.empty());
  EXPECT_EQ(ChooseExperts(router, {}, view)[3].rows.size(), 1u);
  EXPECT_EQ(ChooseExperts(router, {}, view)[4].rows.size(), 1u);
}

}  // namespace
}  // namespace bakestone
