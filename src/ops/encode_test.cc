// Encoding tensors: the same bytes for any number of threads; what cannot be held is refused by
// name.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/isa.h"
#include "kernels/test_cases.h"
#include "ops/encode.h"
#include "ops/linear.h"
#include "tensor/dequantize.h"

namespace bakestone::ops {
namespace {

std::vector<uint8_t> EncodeWith(int threads, DType to, const std::vector<float>& x, int64_t k) {
  ThreadPool pool(threads);
  const auto n = static_cast<int64_t>(x.size()) / k;
  std::vector<uint8_t> out(static_cast<size_t>(n * RowBytes(to, k)));
  Encode(pool, ChooseKernels(nullptr), {.name = "t", .to = to, .n = n, .k = k, .out = out.data()},
         RowsOf(DType::kF32, reinterpret_cast<const uint8_t*>(x.data()), k));
  return out;
}

std::string MessageOf(DType to, const std::vector<float>& x, int64_t k) {
  try {
    EncodeWith(2, to, x, k);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Encode, BytesDoNotDependOnThreads) {
  const std::vector<float> x = testing::RandomFloats(200 * 512, 3);
  for (const DType to : {DType::kQ4_K, DType::kQ8_0, DType::kF16}) {
    EXPECT_EQ(EncodeWith(1, to, x, 512), EncodeWith(3, to, x, 512)) << DTypeName(to);
  }
}

TEST(Encode, PlainTypesRoundTrip) {
  const std::vector<float> x = {1.5f, -2.25f, 0.0f, 1024.0f};
  for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::vector<uint8_t> bytes = EncodeWith(1, to, x, 4);
    std::vector<float> back(4);
    DequantizeRow(to, bytes.data(), back.data(), 4);
    EXPECT_EQ(back, x) << DTypeName(to);
  }
}

// Odd numbers of rows and columns, an order of rows, several threads: as encoding the rows in that
// order and packing them.
TEST(Encode, PackedEqualsEncodingAndThenPacking) {
  const int64_t n = 37, k = 768;
  const std::vector<float> x = testing::RandomFloats(n * k, 4);
  std::vector<int32_t> order(n);
  for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = static_cast<int32_t>(i * 5 % n);
  ThreadPool pool(3);
  const KernelTable& kernels = ChooseKernels(nullptr);
  const RowSource source = RowsOf(DType::kF32, reinterpret_cast<const uint8_t*>(x.data()), k);
  for (const DType to : {DType::kQ4_K, DType::kQ6_K, DType::kQ8_0, DType::kBF16}) {
    for (const bool fast : {false, true}) {
      for (const auto& map : {std::span<const int32_t>(), std::span<const int32_t>(order)}) {
        std::vector<uint8_t> rows(static_cast<size_t>(n * RowBytes(to, k)));
        EncodeJob job = {.name = "t", .to = to, .n = n, .k = k, .fast = fast, .out = rows.data()};
        Encode(pool, kernels, job, source);
        const PackedMatrix expected = Pack(pool, to, rows.data(), n, k, map);
        Buffer<uint8_t> panel(expected.storage.size());
        job.out = panel.data();
        EncodePacked(pool, kernels, job, source, map);
        EXPECT_TRUE(std::equal(panel.begin(), panel.end(), expected.storage.begin()))
            << DTypeName(to) << fast << map.size();
      }
    }
  }
}

TEST(Encode, PackedRefusesWhatTheTypeCannotHold) {
  std::vector<float> x(64, 1.0f);
  x[40] = 40000.0f;
  ThreadPool pool(2);
  Buffer<uint8_t> panel(PanelBytes(PanelType::kQ4_0, 2, 32));
  EXPECT_THROW(EncodePacked(pool, ChooseKernels(nullptr),
                            {.name = "t", .to = DType::kQ4_0, .n = 2, .k = 32, .out = panel.data()},
                            RowsOf(DType::kF32, reinterpret_cast<const uint8_t*>(x.data()), 32)),
               Error);
}

TEST(Encode, RefusesWhatTheTypeCannotHold) {
  std::vector<float> x(64, 1.0f);
  x[40] = 70000.0f;
  EXPECT_EQ(MessageOf(DType::kF16, x, 32),
            "t: expected values up to 65504 for F16, found 70000; write bf16 or f32 instead");
  EXPECT_EQ(MessageOf(DType::kBF16, x, 32), "no error");
  EXPECT_NE(MessageOf(DType::kQ4_0, x, 32), "no error");
  x[40] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(MessageOf(DType::kF32, x, 32), "no error");
  x[40] = -std::numeric_limits<float>::infinity();
  EXPECT_NE(MessageOf(DType::kBF16, x, 32), "no error");
  EXPECT_NE(MessageOf(DType::kI32, std::vector<float>(32, 1.0f), 32), "no error");
}

}  // namespace
}  // namespace bakestone::ops
