// Attention of every table this machine runs against the reference, bit for bit: every type of
// pages, tiles cut anywhere, segments by themselves, windows, soft caps and sinks; and the
// reference against attention in double arithmetic.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/isa.h"
#include "kernels/kernel_table.h"
#include "kernels/test_cases.h"

namespace bakestone {
namespace {

using testing::AttentionCase;
using testing::RandomFloats;

constexpr KvElement kElements[] = {KvElement::kBF16, KvElement::kF32, KvElement::kF16,
                                   KvElement::kQ8_0};

const KernelTable& Reference() { return ChooseKernels("reference"); }

class AttentionTest : public ::testing::TestWithParam<int> {
 protected:
  const KernelTable& table() const { return *testing::Tables()[static_cast<size_t>(GetParam())]; }
};

int NumTables() { return static_cast<int>(testing::Tables().size()); }

::testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], 4) != 0) {
      return ::testing::AssertionFailure() << "[" << i << "] " << a[i] << " != " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

std::string Describe(const AttentionCase& c) {
  return std::string(testing::KvElementName(c.element)) + ": " + std::to_string(c.heads) +
         " heads of " + std::to_string(c.head_dim) + ", " + std::to_string(c.rows) + " of " +
         std::to_string(c.slots) + " slots, window " + std::to_string(c.window);
}

TEST_P(AttentionTest, EqualsReference) {
  for (const KvElement element : kElements) {
    for (const AttentionCase& c : {AttentionCase{element, 1, 1, 64, 1, 1},
                                   {element, 9, 3, 64, 70, 33},
                                   {element, 4, 2, 36, 100, 100},
                                   {element, 2, 1, 128, 1050, 5},
                                   {element, 3, 3, 2, 65, 40},
                                   {element, 4, 2, 66, 100, 50},
                                   {element, 4, 1, 80, 521, 20},
                                   {element, 15, 1, 96, 600, 37},
                                   {element, 2, 2, 256, 530, 50}}) {
      EXPECT_TRUE(
          SameBits(testing::RunAttention(table(), c), testing::RunAttention(Reference(), c)))
          << Describe(c);
    }
  }
}

TEST_P(AttentionTest, WithWindowCapAndSinksEqualsReference) {
  for (const KvElement element : kElements) {
    for (const auto& [dim, window] : {std::pair<int64_t, int64_t>{40, 1},
                                      {40, 64},
                                      {40, 100},
                                      {40, 513},
                                      {64, 1},
                                      {64, 100},
                                      {64, 513}}) {
      AttentionCase c{element, 4, 2, dim, 1100, 18};
      c.window = window;
      c.soft_cap = window % 2 == 0 ? 0.0f : 15.0f;
      c.sinks = window != 100;
      const auto expected = testing::RunAttention(Reference(), c);
      EXPECT_TRUE(SameBits(testing::RunAttention(table(), c), expected)) << Describe(c);
      c.by_segment = true;
      EXPECT_TRUE(SameBits(testing::RunAttention(table(), c), expected))
          << "by segment: " << Describe(c);
    }
  }
}

TEST_P(AttentionTest, WritesTheBytesOfTheReference) {
  for (const KvElement element : kElements) {
    for (const int64_t dim : {2, 44, 64, 96}) {
      const AttentionCase c{element, 3, 3, dim, 75, 1};
      const testing::AttentionRunner a(table(), c), b(Reference(), c);
      EXPECT_TRUE(std::equal(a.pages().begin(), a.pages().end(), b.pages().begin())) << Describe(c);
    }
  }
}

TEST_P(AttentionTest, ReportsKeysAndValuesThatAreNoNumbers) {
  for (const KvElement element : kElements) {
    for (const size_t bad : {0u, 37u, 63u}) {
      for (const bool in_values : {false, true}) {
        std::vector<float> k = RandomFloats(64, 1), v = k;
        (in_values ? v : k)[bad] = in_values ? std::nanf("") : -INFINITY;
        Buffer<uint8_t> storage(4 * KvHeadBytes(element, 32), Fill::kZero);
        uint8_t* keys[] = {storage.data()};
        uint8_t* values[] = {storage.data() + 2 * KvHeadBytes(element, 32)};
        uint32_t error = 0;
        table().serve.attention[static_cast<int>(element)].write(
            {k.data(), v.data(), 64, 64, 2, 32, &error}, {0, 1, 0, keys, values}, {0, 1});
        EXPECT_EQ(error, kErrorNotFinite) << testing::KvElementName(element);
      }
    }
  }
}

TEST_P(AttentionTest, ToBothSidesIsThatOfTheLastRow) {
  for (const KvElement element : kElements) {
    for (const AttentionCase& c : {AttentionCase{element, 4, 4, 32, 100, 100},
                                   {element, 2, 1, 64, 530, 21},
                                   {element, 3, 3, 44, 37, 37}}) {
      AttentionCase whole = c, last = c;
      whole.both_ways = true;
      last.rows = 1;
      for (const bool by_segment : {false, true}) {
        whole.by_segment = by_segment;
        const auto out = testing::RunAttention(table(), whole);
        EXPECT_TRUE(SameBits(out, testing::RunAttention(Reference(), whole))) << Describe(c);
        // The first query of both is the same, and alone it sees all slots.
        const auto one = testing::RunAttention(Reference(), last);
        EXPECT_TRUE(SameBits({out.begin(), out.begin() + static_cast<int64_t>(one.size())}, one))
            << Describe(c);
      }
    }
  }
}

// At the end of a text rows see fewer slots behind their own, and as many before.
TEST_P(AttentionTest, WithinAWindowToBothSidesEqualsReference) {
  for (const KvElement element : kElements) {
    for (const auto& [slots, rows, ahead] : {std::array<int64_t, 3>{100, 100, 4},
                                             {1100, 20, 64},
                                             {530, 90, 40},
                                             {1545, 20, 256},
                                             {37, 37, 64}}) {
      AttentionCase c{element, 4, 2, 64, slots, rows};
      c.ahead = ahead;
      c.window = 2 * ahead + 1;
      const auto expected = testing::RunAttention(Reference(), c);
      EXPECT_TRUE(SameBits(testing::RunAttention(table(), c), expected)) << Describe(c);
      c.by_segment = true;
      EXPECT_TRUE(SameBits(testing::RunAttention(table(), c), expected))
          << "by segment: " << Describe(c);
    }
  }
}

TEST_P(AttentionTest, DoesNotDependOnTheTile) {
  for (const KvElement element : kElements) {
    AttentionCase c{element, 6, 2, 32, 600, 30};
    c.window = 530;
    c.ahead = 9;
    const auto whole = testing::RunAttention(table(), c);
    for (const int64_t tile : {1, 3, 7}) {
      c.tile = tile;
      EXPECT_TRUE(SameBits(testing::RunAttention(table(), c), whole))
          << Describe(c) << ", tile " << tile;
    }
  }
}

TEST_P(AttentionTest, BySegmentEqualsTheWhole) {
  for (const KvElement element : kElements) {
    for (const int64_t dim : {20, 32}) {
      AttentionCase c{element, 3,    1,
                      dim,     1545, 40};  // some rows of a tile see three segments, some four
      const auto whole = testing::RunAttention(Reference(), c);
      c.by_segment = true;
      EXPECT_TRUE(SameBits(testing::RunAttention(table(), c), whole)) << Describe(c);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, AttentionTest, ::testing::Range(0, NumTables()),
                         [](const auto& info) { return testing::TableName(info.param); });

// ---- What the reference computes is what the formulas mean ----

// The runner's inputs and its scale, one key/value head per two heads.
double WorstError(const AttentionCase& c) {
  const int64_t dim = c.head_dim, kv_dim = c.kv_heads * dim, q_dim = c.heads * dim;
  const auto k = RandomFloats(c.slots * kv_dim, 21), v = RandomFloats(c.slots * kv_dim, 22);
  const auto q = RandomFloats(c.rows * q_dim, 23), sinks = testing::Sinks(c);
  const auto out = testing::RunAttention(Reference(), c);
  const auto at = [](const std::vector<float>& x, int64_t i) {
    return static_cast<double>(x[static_cast<size_t>(i)]);
  };
  double worst = 0;
  for (int64_t t = 0; t < c.rows; ++t) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t slot = c.slots - c.rows + t, kv = h / (c.heads / c.kv_heads) * dim;
      std::vector<double> value(static_cast<size_t>(dim));
      double sum = c.sinks ? std::exp(at(sinks, h)) : 0;
      for (int64_t j = 0; j < c.slots && j <= slot + c.ahead; ++j) {
        if (c.window > 0 && j + c.window <= slot + c.ahead) continue;
        double s = 0;
        for (int64_t d = 0; d < dim; ++d) {
          s += at(q, t * q_dim + h * dim + d) * at(k, j * kv_dim + kv + d);
        }
        s /= static_cast<double>(dim / 8 + 1);
        if (c.soft_cap > 0) {
          s = static_cast<double>(c.soft_cap) * std::tanh(s / static_cast<double>(c.soft_cap));
        }
        const double p = std::exp(s);
        sum += p;
        for (int64_t d = 0; d < dim; ++d) {
          value[static_cast<size_t>(d)] += p * at(v, j * kv_dim + kv + d);
        }
      }
      for (int64_t d = 0; d < dim; ++d) {
        const double expected = value[static_cast<size_t>(d)] / sum;
        worst = std::max(worst, std::fabs(at(out, t * q_dim + h * dim + d) - expected));
      }
    }
  }
  return worst;
}

// Values reach 30 (the outliers): bf16 keeps 8 bits of them, f16 11, Q8_0 7 of the largest of 32.
TEST(ReferenceAttention, IsCloseToDoubleArithmetic) {
  constexpr double kMost[kNumKvElements] = {0.3, 2e-5, 0.03, 0.5};
  for (const KvElement element : kElements) {
    for (const int64_t window : {0, 3, 600}) {
      for (const float cap : {0.0f, 5.0f}) {
        AttentionCase c{element, 4, 2, 32, 1050, 4};
        c.window = window;
        c.ahead = window / 3;
        c.soft_cap = cap;
        c.sinks = window != 600;
        const double worst = WorstError(c);
        EXPECT_LT(worst, kMost[static_cast<int>(element)]) << Describe(c) << ", cap " << cap;
        EXPECT_GT(worst, 1e-9);
      }
    }
  }
}

}  // namespace
}  // namespace bakestone
