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
