// The encoders: the same bytes in every table; errors held against searches by brute force, which
// share no code with them; what a block can hold comes back.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/isa.h"
#include "kernels/pack.h"
#include "kernels/test_cases.h"
#include "tensor/blocks.h"
#include "tensor/dequantize.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

using testing::RandomFloats;

constexpr PanelType kQuantized[] = {
    PanelType::kQ4_0,   PanelType::kQ4_1,   PanelType::kQ5_0, PanelType::kQ5_1, PanelType::kQ8_0,
    PanelType::kQ2_K,   PanelType::kQ3_K,   PanelType::kQ4_K, PanelType::kQ5_K, PanelType::kQ6_K,
    PanelType::kIQ4_NL, PanelType::kIQ4_XS, PanelType::kMXFP4};

std::vector<uint8_t> EncodeBy(const EncodeRows (&encoders)[kNumPanelTypes], PanelType type,
                              const std::vector<float>& x, const std::vector<float>& importance,
                              int64_t k) {
  const auto rows = static_cast<int64_t>(x.size()) / k;
  std::vector<uint8_t> blocks(static_cast<size_t>(rows * RowBytes(DiskTypeOf(type), k)));
  const EncodeArgs args = {x.data(), importance.empty() ? nullptr : importance.data(),
                           blocks.data(), k};
  encoders[static_cast<int>(type)](args, {0, rows});
  return blocks;
}

std::vector<uint8_t> Encode(const KernelTable& table, PanelType type, const std::vector<float>& x,
                            const std::vector<float>& importance, int64_t k) {
  return EncodeBy(table.encode.rows, type, x, importance, k);
}

std::vector<uint8_t> EncodeFast(const KernelTable& table, PanelType type,
                                const std::vector<float>& x, int64_t k) {
  return EncodeBy(table.encode.fast, type, x, {}, k);
}

std::vector<float> Decode(PanelType type, const std::vector<uint8_t>& blocks, int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  DequantizeRow(DiskTypeOf(type), blocks.data(), x.data(), n);
  return x;
}

double ErrorOf(const std::vector<float>& x, const std::vector<float>& y,
               const std::vector<float>& w, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) {
    const double rest = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += (w.empty() ? 1.0 : static_cast<double>(w[i])) * rest * rest;
  }
  return sum;
}

// Positive, over two decades.
std::vector<float> RandomImportance(int64_t k, uint64_t seed) {
  std::vector<float> w = RandomFloats(k, seed);
  for (float& value : w) value = std::exp(std::clamp(1.2f * value, -2.3f, 2.3f));
  return w;
}

TEST(Encode, EveryTableGivesTheBytesOfTheReference) {
  for (const PanelType type : kQuantized) {
    const int64_t k = 3 * BlockSize(DiskTypeOf(type));
    const std::vector<float> x = RandomFloats(7 * k, 11), w = RandomImportance(k, 12);
    const std::vector<uint8_t> expected = Encode(ChooseKernels("reference"), type, x, w, k);
    for (const KernelTable* table : AvailableKernels()) {
      EXPECT_EQ(Encode(*table, type, x, w, k), expected)
          << testing::PanelTypeName(type) << " " << IsaName(table->isa);
      EXPECT_EQ(EncodeFast(*table, type, x, k), EncodeFast(ChooseKernels("reference"), type, x, k))
          << testing::PanelTypeName(type) << " " << IsaName(table->isa);
    }
  }
}

TEST(Encode, ARowDoesNotDependOnItsNeighbours) {
  const KernelTable& table = ChooseKernels(nullptr);
  for (const PanelType type : kQuantized) {
    const int64_t k = 3 * BlockSize(DiskTypeOf(type));
    const std::vector<float> x = RandomFloats(5 * k, 13);
    const std::vector<uint8_t> whole = Encode(table, type, x, {}, k);
    const std::vector<uint8_t> alone =
        Encode(table, type, {x.begin() + 3 * k, x.begin() + 4 * k}, {}, k);
    EXPECT_EQ(std::memcmp(alone.data(), whole.data() + 3 * alone.size(), alone.size()), 0)
        << testing::PanelTypeName(type);
    const std::vector<uint8_t> fast = EncodeFast(table, type, x, k);
    const std::vector<uint8_t> fast_alone =
        EncodeFast(table, type, {x.begin() + 3 * k, x.begin() + 4 * k}, k);
    EXPECT_EQ(std::memcmp(fast_alone.data(), fast.data() + 3 * alone.size(), alone.size()), 0)
        << testing::PanelTypeName(type);
  }
}

std::vector<float> LevelsOf(PanelType type) {
  std::vector<float> levels;
  const auto range = [&](int low, int high) {
    for (int q = low; q <= high; ++q) levels.push_back(static_cast<float>(q));
  };
  switch (type) {
    case PanelType::kQ4_0:
      range(-8, 7);
      break;
    case PanelType::kQ5_0:
      range(-16, 15);
      break;
    case PanelType::kQ8_0:
      range(-127, 127);
      break;
    case PanelType::kQ3_K:
      range(-4, 3);
      break;
    case PanelType::kQ6_K:
      range(-32, 31);
      break;
    case PanelType::kIQ4_NL:
    case PanelType::kIQ4_XS:
      levels.assign(kIQ4Values, kIQ4Values + 16);
      break;
    case PanelType::kMXFP4:
      levels.assign(kMXFP4Values, kMXFP4Values + 16);
      break;
    case PanelType::kQ4_1:
    case PanelType::kQ4_K:
      range(0, 15);
      break;
    case PanelType::kQ5_1:
    case PanelType::kQ5_K:
      range(0, 31);
      break;
    case PanelType::kQ2_K:
      range(0, 3);
      break;
    default:
      break;
  }
  std::sort(levels.begin(), levels.end());
  return levels;
}

double ErrorAt(const float* x, const float* w, int64_t n, const std::vector<float>& levels,
               double scale, double offset) {
  double error = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double t = scale == 0 ? 0 : (x[i] - offset) / scale;
    auto it = std::lower_bound(levels.begin(), levels.end(), static_cast<float>(t));
    double best = std::numeric_limits<double>::max();
    if (it != levels.end()) best = std::abs(x[i] - offset - scale * static_cast<double>(*it));
    if (it != levels.begin()) {
      best = std::min(best, std::abs(x[i] - offset - scale * static_cast<double>(it[-1])));
    }
    error += w[i] * best * best;
  }
  return error;
}

// The least error of a group over a dense grid of real scales (and offsets, for lines).
double BruteForce(PanelType type, const float* x, const float* w, int64_t n) {
  const std::vector<float> levels = LevelsOf(type);
  const auto [low, high] = std::minmax_element(x, x + n);
  double best = std::numeric_limits<double>::max();
  if (levels.front() < 0) {
    const double peak = std::max(std::abs(*low), std::abs(*high));
    if (type == PanelType::kMXFP4) {
      for (int e = 0; e < 255; ++e) {
        best =
            std::min(best, ErrorAt(x, w, n, levels, E8M0ToFloatHalf(static_cast<uint8_t>(e)), 0));
      }
      return best;
    }
    for (int i = 0; i < 4000; ++i) {
      const double scale = peak / static_cast<double>(levels.back()) * (0.5 + i / 4000.0);
      best =
          std::min({best, ErrorAt(x, w, n, levels, scale, 0), ErrorAt(x, w, n, levels, -scale, 0)});
    }
    return best;
  }
  const bool up_to_0 = type != PanelType::kQ4_1 && type != PanelType::kQ5_1;
  const double most = levels.back(), range = *high - *low;
  for (int i = 0; i < 120; ++i) {
    const double scale = range / most * (0.55 + i / 240.0);
    for (int j = 0; j < 120; ++j) {
      const double offset = *low - range * 0.03 + range * 0.3 * j / 120.0;
      best =
          std::min(best, ErrorAt(x, w, n, levels, scale, up_to_0 ? std::min(0.0, offset) : offset));
    }
  }
  return best;
}

// Over many groups, because a single one may be lucky on either side. The slack: the brute force
// tries thousands of real scales, which is worth most where levels are many, and does not round
// them to multiples.
TEST(Encode, ErrorsAreNearBruteForce) {
  const KernelTable& table = ChooseKernels(nullptr);
  for (const PanelType type : kQuantized) {
    const DType disk = DiskTypeOf(type);
    const bool super = BlockSize(disk) == 256;
    const bool by_16 =
        type == PanelType::kQ2_K || type == PanelType::kQ3_K || type == PanelType::kQ6_K;
    const int64_t k = 1024, group = by_16 ? 16 : 32;
    const std::vector<float> x = RandomFloats(k, 21), w = RandomImportance(k, 22);
    const std::vector<float> y = Decode(type, Encode(table, type, x, w, k), k);
    double ours = ErrorOf(x, y, w, 0, x.size()), bound = 0;
    for (int64_t i = 0; i < k; i += group) {
      bound += BruteForce(type, x.data() + i, w.data() + i, group);
    }
    const double slack = type == PanelType::kMXFP4           ? 1.000001
                         : type == PanelType::kQ2_K          ? 1.25
                         : super || type == PanelType::kQ8_0 ? 1.20
                                                             : 1.04;
    EXPECT_LE(ours, slack * bound) << testing::PanelTypeName(type) << " " << ours / bound;
  }
}

// What kernel_table.h says of it, with room for luck.
TEST(Encode, TheFastSearchIsLittleWorse) {
  const KernelTable& table = ChooseKernels(nullptr);
  for (const PanelType type : kQuantized) {
    const int64_t k = 1 << 15;
    const std::vector<float> x = RandomFloats(k, 23);
    const double thorough = ErrorOf(x, Decode(type, Encode(table, type, x, {}, k), k), {}, 0, k);
    const double fast = ErrorOf(x, Decode(type, EncodeFast(table, type, x, k), k), {}, 0, k);
    EXPECT_LE(fast, 1.15 * thorough) << testing::PanelTypeName(type) << " " << fast / thorough;
  }
}

TEST(Encode, ImportanceLowersTheErrorThatItWeighs) {
  const KernelTable& table = ChooseKernels(nullptr);
  for (const PanelType type : kQuantized) {
    const int64_t k = 1024;
    const std::vector<float> x = RandomFloats(k, 31), w = RandomImportance(k, 33);
    const double with = ErrorOf(x, Decode(type, Encode(table, type, x, w, k), k), w, 0, x.size());
    const double without =
        ErrorOf(x, Decode(type, Encode(table, type, x, {}, k), k), w, 0, x.size());
    EXPECT_LT(with, 0.97 * without) << testing::PanelTypeName(type);
  }
}

// A row that already lies on the levels of its blocks, ends used, is left as it is.
TEST(Encode, WhatBlocksHoldComesBack) {
  const KernelTable& table = ChooseKernels(nullptr);
  for (const PanelType type : {PanelType::kQ4_0, PanelType::kQ5_0, PanelType::kQ8_0,
                               PanelType::kQ4_1, PanelType::kQ5_1, PanelType::kMXFP4}) {
    const std::vector<float> levels = LevelsOf(type);
    std::vector<float> x(64);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = 0.0625f * levels[i % 32 == 5   ? 0
                              : i % 32 == 9 ? levels.size() - 1
                                            : i * 7 % levels.size()];
      if (levels.front() == 0) x[i] -= 0.25f;
    }
    EXPECT_EQ(Decode(type, Encode(table, type, x, {}, 64), 64), x) << testing::PanelTypeName(type);
    EXPECT_EQ(Decode(type, EncodeFast(table, type, x, 64), 64), x) << testing::PanelTypeName(type);
  }
}

TEST(Encode, ZerosTinyValuesAndOutliersStayFinite) {
  const KernelTable& table = ChooseKernels(nullptr);
  for (const PanelType type : kQuantized) {
    std::vector<float> x(1024, 0.0f);
    EXPECT_EQ(Decode(type, Encode(table, type, x, {}, 1024), 1024), x)
        << testing::PanelTypeName(type);
    EXPECT_EQ(Decode(type, EncodeFast(table, type, x, 1024), 1024), x)
        << testing::PanelTypeName(type);
    for (size_t i = 256; i < 512; ++i) x[i] = 1e-30f * static_cast<float>(i);
    x[600] = 30000.0f;
    x[700] = -30000.0f;
    for (size_t i = 768; i < 1024; ++i) x[i] = -0.5f;
    for (const std::vector<uint8_t>& blocks :
         {Encode(table, type, x, {}, 1024), EncodeFast(table, type, x, 1024)}) {
      const std::vector<float> y = Decode(type, blocks, 1024);
      for (const float value : y) EXPECT_TRUE(std::isfinite(value)) << testing::PanelTypeName(type);
      EXPECT_NEAR(y[600], 30000.0f, 6000.0f) << testing::PanelTypeName(type);
      EXPECT_NEAR(y[800], -0.5f, 0.05f) << testing::PanelTypeName(type);
    }
  }
}

}  // namespace
}  // namespace bakestone
