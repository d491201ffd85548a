#include "kernels/pack.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/isa.h"
#include "kernels/test_cases.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

using testing::PanelCase;

class PackTest : public ::testing::TestWithParam<int> {
 protected:
  PanelType type() const { return static_cast<PanelType>(GetParam()); }
};

std::vector<float> FileRow(const PanelCase& c, int64_t row) {
  const DType disk = DiskTypeOf(c.panel.type);
  std::vector<float> out(static_cast<size_t>(c.panel.k));
  DequantizeRow(disk, c.rows.data() + row * RowBytes(disk, c.panel.k), out.data(), c.panel.k);
  return out;
}

TEST_P(PackTest, EveryTableDecodesThePanelToTheFilesValues) {
  for (const int64_t blocks : {1, 2, 3}) {  // of plain types k is odd and even
    const int64_t k = blocks * testing::SmallK(type());
    const PanelCase c = testing::RandomPanel(type(), 37, k, 5);
    for (const KernelTable* table : AvailableKernels()) {
      const DequantizeKernels& kernels = table->serve.dequantize[GetParam()];
      std::vector<float> strip(static_cast<size_t>(16 * k)), row(static_cast<size_t>(k));
      for (int32_t i = 0; i < c.panel.n; ++i) {
        const std::vector<float> expected = FileRow(c, i);
        kernels.rows(c.panel, &i, 1, row.data(), k);
        ASSERT_EQ(0, std::memcmp(row.data(), expected.data(), row.size() * 4))
            << IsaName(table->isa) << " row " << i;
        if (i % 16 == 0) kernels.strip(c.panel, i / 16, 0, k, strip.data());
        for (size_t j = 0; j < row.size(); ++j) {
          ASSERT_EQ(0, std::memcmp(&strip[16 * j + static_cast<size_t>(i % 16)], &expected[j], 4))
              << IsaName(table->isa) << " row " << i << " k " << j;
        }
      }
    }
  }
}

TEST_P(PackTest, RowMapPermutesRows) {
  const int64_t k = testing::SmallK(type());
  const PanelCase c = testing::RandomPanel(type(), 20, k, 6);
  std::vector<int32_t> map;
  for (int32_t i = 0; i < 20; ++i) map.push_back(19 - i);
  Buffer<uint8_t> storage(PanelBytes(type(), 20, k));
  PackStrips({type(), c.rows.data(), 20, k, map.data(), storage.data()}, {0, 2});
  const Panel panel{storage.data(), 20, k, type()};
  std::vector<float> row(static_cast<size_t>(k));
  for (int32_t i = 0; i < 20; ++i) {
    ChooseKernels("reference").serve.dequantize[GetParam()].rows(panel, &i, 1, row.data(), k);
    const std::vector<float> expected = FileRow(c, 19 - i);
    ASSERT_EQ(0, std::memcmp(row.data(), expected.data(), row.size() * 4)) << i;
  }
}

TEST_P(PackTest, PanelsAreAtMostThreePercentLargerThanTheFile) {
  for (const int64_t k : {512, 768, 2048, 4096}) {
    const int64_t file = 64 * RowBytes(DiskTypeOf(type()), k);
    EXPECT_LE(PanelBytes(type(), 64, k), file * 103 / 100) << k;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PackTest, ::testing::Range(0, kNumPanelTypes),
                         [](const auto& info) {
                           return testing::PanelTypeName(static_cast<PanelType>(info.param));
                         });

TEST(PanelTypeOf, RefusesIntegers) {
  EXPECT_FALSE(PanelTypeOf(DType::kI32).has_value());
  EXPECT_EQ(PanelTypeOf(DType::kQ4_K), PanelType::kQ4_K);
}

}  // namespace
}  // namespace bakestone
