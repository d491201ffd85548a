#include "model/experts.h"

#include <gtest/gtest.h>

#include <array>

namespace bakestone {
namespace {

TEST(Experts, RowsChooseTheGreatestAndOfEqualOnesTheFirst) {
  const std::array<float, 8> logits = {1, 3, 3, 0, /**/ 2, 2, 2, 2};
  const auto chosen = ChooseExperts({.experts = 4, .used = 2}, DenseView<const float>(logits.data(), 2, 4));
  EXPECT_EQ(chosen[0].rows, std::vector<int32_t>{1});
  EXPECT_EQ(chosen[1].rows, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(chosen[2].rows, std::vector<int32_t>{0});
  EXPECT_TRUE(chosen[3].rows.empty());
  EXPECT_FLOAT_EQ(chosen[1].shares[0], 0.5f);
}

TEST(Experts, SharesAreOfTheChosenOrOfAll) {
  const std::array<float, 3> logits = {0, 0, 0};
  const MatrixView<const float> view = DenseView<const float>(logits.data(), 1, 3);
  EXPECT_FLOAT_EQ(ChooseExperts({.experts = 3, .used = 2}, view)[0].shares[0], 1.0f / 2);
  EXPECT_FLOAT_EQ(ChooseExperts({.experts = 3, .used = 2, .renormalize = false}, view)[0].shares[0], 1.0f / 3);
}

}  // namespace
}  // namespace bakestone
