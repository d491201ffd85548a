#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "base/error.h"
#include "tensor/blocks.h"
#include "tensor/buffer.h"
#include "tensor/dequantize.h"
#include "tensor/dtype.h"
#include "tensor/half.h"
#include "tensor/matrix_view.h"

namespace bakestone {
namespace {

using testing::HasSubstr;

constexpr DType kAllTypes[] = {
    DType::kF32,    DType::kF16,    DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
    DType::kQ8_0,   DType::kQ2_K,   DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K,
    DType::kI8,     DType::kI16,    DType::kI32,  DType::kI64,  DType::kF64,  DType::kBF16,
    DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

std::string MessageOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(DType, BlockBytesAreTheSizesOfTheBlocks) {
  EXPECT_EQ(BlockBytes(DType::kQ4_0), static_cast<int64_t>(sizeof(BlockQ4_0)));
  EXPECT_EQ(BlockBytes(DType::kQ4_1), static_cast<int64_t>(sizeof(BlockQ4_1)));
  EXPECT_EQ(BlockBytes(DType::kQ5_0), static_cast<int64_t>(sizeof(BlockQ5_0)));
  EXPECT_EQ(BlockBytes(DType::kQ5_1), static_cast<int64_t>(sizeof(BlockQ5_1)));
  EXPECT_EQ(BlockBytes(DType::kQ8_0), static_cast<int64_t>(sizeof(BlockQ8_0)));
  EXPECT_EQ(BlockBytes(DType::kQ2_K), static_cast<int64_t>(sizeof(BlockQ2_K)));
  EXPECT_EQ(BlockBytes(DType::kQ3_K), static_cast<int64_t>(sizeof(BlockQ3_K)));
  EXPECT_EQ(BlockBytes(DType::kQ4_K), static_cast<int64_t>(sizeof(BlockQ4_K)));
  EXPECT_EQ(BlockBytes(DType::kQ5_K), static_cast<int64_t>(sizeof(BlockQ5_K)));
  EXPECT_EQ(BlockBytes(DType::kQ6_K), static_cast<int64_t>(sizeof(BlockQ6_K)));
  EXPECT_EQ(BlockBytes(DType::kIQ4_NL), static_cast<int64_t>(sizeof(BlockIQ4_NL)));
  EXPECT_EQ(BlockBytes(DType::kIQ4_XS), static_cast<int64_t>(sizeof(BlockIQ4_XS)));
  EXPECT_EQ(BlockBytes(DType::kMXFP4), static_cast<int64_t>(sizeof(BlockMXFP4)));
}

TEST(DType, NumbersThatAreNoTypeAreKnownAsSuch) {
  int known = 0;
  for (uint32_t i = 0; i < 1000; ++i) known += IsDType(i) ? 1 : 0;
  EXPECT_EQ(known, static_cast<int>(std::size(kAllTypes)));
  for (const DType type : kAllTypes) {
    EXPECT_TRUE(IsDType(static_cast<uint32_t>(type)));
    EXPECT_STRNE(DTypeName(type), "?");
    EXPECT_GT(BlockBytes(type), 0);
  }
  EXPECT_FALSE(IsDType(9));
  EXPECT_FALSE(IsDType(0xFFFFFFFF));
  EXPECT_STREQ(DTypeName(static_cast<DType>(9)), "?");
}

TEST(DType, RowBytesRefusesWhatIsNoRow) {
  EXPECT_EQ(RowBytes(DType::kQ4_1, 576), 360);
  EXPECT_EQ(RowBytes(DType::kQ6_K, 0), 0);
  EXPECT_THAT(MessageOf([] { RowBytes(DType::kQ6_K, 576); }),
              HasSubstr("Q6_K: expected a non-negative multiple of 256 elements, found 576"));
  EXPECT_THAT(MessageOf([] { RowBytes(DType::kF32, -1); }), HasSubstr("found -1"));
  EXPECT_THAT(MessageOf([] { RowBytes(DType::kF32, INT64_MAX); }), HasSubstr("does not fit"));
  EXPECT_THAT(MessageOf([] { RowBytes(static_cast<DType>(9), 32); }), HasSubstr("found number 9"));
}

// Every finite half, and between each pair of neighbours the tie and its two sides.
TEST(Half, RoundsEveryHalfAndEveryTieToNearestEven) {
  EXPECT_EQ(F16ToFloat(0x3C00), 1.0f);
  EXPECT_EQ(F16ToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(F16ToFloat(0x03FF), 1023 * 0x1p-24f);
  EXPECT_EQ(F16ToFloat(0x7BFF), 65504.0f);
  for (uint32_t h = 0; h < 0x7C00; ++h) {
    const float x = F16ToFloat(static_cast<uint16_t>(h));
    // The next half, or what it would be if the exponent went on.
    const float next = h == 0x7BFF ? 65536.0f : F16ToFloat(static_cast<uint16_t>(h + 1));
    const float tie = (x + next) / 2;
    ASSERT_LT(x, next);
    ASSERT_EQ(FloatToF16(x), h);
    ASSERT_EQ(FloatToF16(-x), h | 0x8000);
    ASSERT_EQ(F16ToFloat(static_cast<uint16_t>(h | 0x8000)), -x);
    ASSERT_EQ(FloatToF16(tie), h % 2 == 0 ? h : h + 1) << h;
    ASSERT_EQ(FloatToF16(std::nextafter(tie, 0.0f)), h) << h;
    ASSERT_EQ(FloatToF16(std::nextafter(tie, 1e9f)), h + 1) << h;
  }
}

TEST(Half, KeepsInfinityAndNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FloatToF16(infinity), 0x7C00);
  EXPECT_EQ(FloatToF16(-1e30f), 0xFC00);
  EXPECT_EQ(F16ToFloat(0xFC00), -infinity);
  EXPECT_EQ(FloatToBF16(infinity), 0x7F80);
  EXPECT_EQ(FloatToBF16(std::numeric_limits<float>::max()), 0x7F80);
  for (const uint32_t bits : {0x7F800001u, 0x7FC00000u, 0xFFFFFFFFu, 0xFF800001u}) {
    const float nan = FloatOfBits(bits);
    EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(nan)))) << bits;
    EXPECT_TRUE(std::isnan(BF16ToFloat(FloatToBF16(nan)))) << bits;
    EXPECT_EQ(FloatToF16(nan) >> 15, bits >> 31);
    EXPECT_EQ(FloatToBF16(nan) >> 15, bits >> 31);
  }
  EXPECT_EQ(BitsOfFloat(F16ToFloat(0x7C01)), 0x7FC02000u);  // quiet, payload kept
}

TEST(Half, RoundsBF16ToNearestEven) {
  for (uint32_t b = 0; b < 0x7F80; ++b) {
    const uint32_t bits = b << 16;
    ASSERT_EQ(FloatToBF16(FloatOfBits(bits)), b);
    ASSERT_EQ(FloatToBF16(FloatOfBits(bits + 0x7FFF)), b);
    ASSERT_EQ(FloatToBF16(FloatOfBits(bits + 0x8000)), b % 2 == 0 ? b : b + 1);
    ASSERT_EQ(FloatToBF16(FloatOfBits(bits + 0x8001)), b + 1);
  }
}

TEST(Half, E8M0IsHalfAPowerOfTwo) {
  for (int e = 0; e < 256; ++e) {
    ASSERT_EQ(E8M0ToFloatHalf(static_cast<uint8_t>(e)), std::ldexp(0.5f, e - 127)) << e;
  }
}

TEST(Dequantize, ConvertsPlainTypesAtAnyAddress) {
  const int16_t shorts[] = {-3, 0, 32767};
  const double doubles[] = {0.1, -1e300, 4};
  std::vector<uint8_t> bytes(1 + sizeof(doubles));
  float out[3];
  std::memcpy(bytes.data() + 1, shorts, sizeof(shorts));
  DequantizeRow(DType::kI16, bytes.data() + 1, out, 3);
  EXPECT_THAT(out, testing::ElementsAre(-3, 0, 32767));
  std::memcpy(bytes.data() + 1, doubles, sizeof(doubles));
  DequantizeRow(DType::kF64, bytes.data() + 1, out, 3);
  EXPECT_THAT(out, testing::ElementsAre(0.1f, -std::numeric_limits<float>::infinity(), 4));
  EXPECT_THAT(MessageOf([&] { DequantizeRow(DType::kQ8_0, bytes.data(), out, 3); }),
              HasSubstr("multiple of 32"));
}

TEST(Dequantize, EveryHalfIsWhatF16ToFloatMakesOfIt) {
  std::vector<uint16_t> halves(65536 + 5);  // a rest that fills no vector
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> out(halves.size());
  DequantizeRow(DType::kF16, halves.data(), out.data(), static_cast<int64_t>(out.size()));
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(BitsOfFloat(out[i]), BitsOfFloat(F16ToFloat(halves[i]))) << i;
  }
}

TEST(Buffer, IsAlignedMovableAndZeroOnRequest) {
  Buffer<float> buffer(1001, Fill::kZero);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
  EXPECT_EQ(buffer.bytes(), 4004);
  for (const float x : buffer) ASSERT_EQ(x, 0);
  buffer[1000] = 5;
  Buffer<float> other = std::move(buffer);
  EXPECT_EQ(buffer.size(), 0);  // NOLINT: a moved-from buffer is empty
  EXPECT_EQ(other[1000], 5);
  EXPECT_TRUE(Buffer<int8_t>(0).empty());
  EXPECT_THAT(MessageOf([] { Buffer<double>(INT64_MAX / 4); }), HasSubstr("cannot be had"));
  EXPECT_THAT(MessageOf([] { Buffer<int8_t>(-1); }), HasSubstr("found -1"));
#ifndef BAKESTONE_SANITIZED  // sanitizers report such a request instead of refusing it
  EXPECT_THAT(MessageOf([] { Buffer<int8_t>(int64_t{1} << 60); }),
              HasSubstr("1152921504606846976"));
#endif
}

TEST(MatrixView, StepsByItsStride) {
  float data[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const MatrixView<float> view{data, 3, 3, 4};
  const MatrixView<const float> read = view.Rows(1, 2);
  EXPECT_EQ(read.rows, 2);
  EXPECT_EQ(read(1, 2), 10);
  EXPECT_EQ(DenseView(data, 4, 3)(1, 0), 3);
}

}  // namespace
}  // namespace bakestone
