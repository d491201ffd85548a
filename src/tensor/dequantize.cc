// blocks.h has the layouts and formulas. Each decoder takes one block; every product and sum is one
// rounded float operation (the build sets -ffp-contract=off), which is what fixes the bits.
#include "tensor/dequantize.h"

#include <bit>
#include <cstring>

#include "tensor/blocks.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

static_assert(std::endian::native == std::endian::little, "files hold little-endian values");

float F(int q) { return static_cast<float>(q); }
int Low(uint8_t x) { return x & 15; }
int High(uint8_t x) { return x >> 4; }

void Decode(const BlockQ4_0& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * F(Low(b.qs[j]) - 8);
    out[j + 16] = d * F(High(b.qs[j]) - 8);
  }
}

void Decode(const BlockQ4_1& b, float* out) {
  const float d = F16ToFloat(b.d), m = F16ToFloat(b.m);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * F(Low(b.qs[j])) + m;
    out[j + 16] = d * F(High(b.qs[j])) + m;
  }
}

// The fifth bit of weight j, in place.
int FifthBit(const uint8_t* qh, int j) { return ((qh[j / 8] >> (j % 8)) & 1) << 4; }

void Decode(const BlockQ5_0& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * F((Low(b.qs[j]) | FifthBit(b.qh, j)) - 16);
    out[j + 16] = d * F((High(b.qs[j]) | FifthBit(b.qh, j + 16)) - 16);
  }
}

void Decode(const BlockQ5_1& b, float* out) {
  const float d = F16ToFloat(b.d), m = F16ToFloat(b.m);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * F(Low(b.qs[j]) | FifthBit(b.qh, j)) + m;
    out[j + 16] = d * F(High(b.qs[j]) | FifthBit(b.qh, j + 16)) + m;
  }
}

void Decode(const BlockQ8_0& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int j = 0; j < 32; ++j) out[j] = d * F(b.qs[j]);
}

// Two bits of weight i of a super-block, as Q2_K and Q3_K store them.
int TwoBits(const uint8_t* qs, int i) {
  return (qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
}

void Decode(const BlockQ2_K& b, float* out) {
  const float d = F16ToFloat(b.d), dmin = F16ToFloat(b.dmin);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * F(Low(b.scales[g])), minimum = dmin * F(High(b.scales[g]));
    for (int i = 16 * g; i < 16 * g + 16; ++i) out[i] = scale * F(TwoBits(b.qs, i)) - minimum;
  }
}

void Decode(const BlockQ3_K& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? Low(b.scales[g]) : High(b.scales[g - 8]);
    const int high = (b.scales[8 + g % 4] >> (g / 4 * 2)) & 3;
    const float scale = d * F((low | high << 4) - 32);
    for (int i = 16 * g; i < 16 * g + 16; ++i) {
      const int missing = (b.hmask[i % 32] >> (i / 32)) & 1 ? 0 : 4;
      out[i] = scale * F(TwoBits(b.qs, i) - missing);
    }
  }
}

struct ScaleMin {
  int scale, min;
};

ScaleMin GroupScale(const uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {Low(s[j + 4]) | (s[j - 4] >> 6) << 4, High(s[j + 4]) | (s[j] >> 6) << 4};
}

void Decode(const BlockQ4_K& b, float* out) {
  const float d = F16ToFloat(b.d), dmin = F16ToFloat(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const ScaleMin group = GroupScale(b.scales, g);
    const float scale = d * F(group.scale), minimum = dmin * F(group.min);
    const uint8_t* qs = b.qs + g / 2 * 32;
    for (int l = 0; l < 32; ++l) {
      const int q = g % 2 == 0 ? Low(qs[l]) : High(qs[l]);
      out[32 * g + l] = scale * F(q) - minimum;
    }
  }
}

void Decode(const BlockQ5_K& b, float* out) {
  const float d = F16ToFloat(b.d), dmin = F16ToFloat(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const ScaleMin group = GroupScale(b.scales, g);
    const float scale = d * F(group.scale), minimum = dmin * F(group.min);
    const uint8_t* qs = b.qs + g / 2 * 32;
    for (int l = 0; l < 32; ++l) {
      const int low = g % 2 == 0 ? Low(qs[l]) : High(qs[l]);
      out[32 * g + l] = scale * F(low | ((b.qh[l] >> g) & 1) << 4) - minimum;
    }
  }
}

void Decode(const BlockQ6_K& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    const uint8_t packed = b.ql[64 * half + 32 * (quarter % 2) + l];
    const int low = quarter < 2 ? Low(packed) : High(packed);
    const int high = (b.qh[32 * half + l] >> (2 * quarter)) & 3;
    out[i] = d * F(b.scales[i / 16]) * F((low | high << 4) - 32);
  }
}

void Decode(const BlockIQ4_NL& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * F(kIQ4Values[Low(b.qs[j])]);
    out[j + 16] = d * F(kIQ4Values[High(b.qs[j])]);
  }
}

void Decode(const BlockIQ4_XS& b, float* out) {
  const float d = F16ToFloat(b.d);
  for (int g = 0; g < 8; ++g) {
    const int low = g % 2 == 0 ? Low(b.scales_l[g / 2]) : High(b.scales_l[g / 2]);
    const float scale = d * F((low | ((b.scales_h >> (2 * g)) & 3) << 4) - 32);
    for (int j = 0; j < 16; ++j) {
      const uint8_t packed = b.qs[16 * g + j];
      out[32 * g + j] = scale * F(kIQ4Values[Low(packed)]);
      out[32 * g + j + 16] = scale * F(kIQ4Values[High(packed)]);
    }
  }
}

void Decode(const BlockMXFP4& b, float* out) {
  const float d = E8M0ToFloatHalf(b.e);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * F(kMXFP4Values[Low(b.qs[j])]);
    out[j + 16] = d * F(kMXFP4Values[High(b.qs[j])]);
  }
}

// Blocks may lie at any address, so each is copied before it is read.
template <class Block>
void DecodeBlocks(const uint8_t* bytes, float* out, int64_t n, int64_t block_size) {
  for (int64_t i = 0; i < n; i += block_size, bytes += sizeof(Block)) {
    Block block;
    std::memcpy(&block, bytes, sizeof(Block));
    Decode(block, out + i);
  }
}

template <class T, class Convert>
void ConvertEach(const uint8_t* bytes, float* out, int64_t n, Convert convert) {
  for (int64_t i = 0; i < n; ++i, bytes += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes, sizeof(T));
    out[i] = convert(value);
  }
}

// F16ToFloat without branches, so that a compiler makes vectors of it. A product with a power of
// two brings the exponent from one bias to the other, and is exact for denormals too.
inline float F16ToFloatBranchless(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const int32_t magnitude = (h & 0x7FFF) << 13;  // signed: SSE2 compares no others
  const uint32_t bits = static_cast<uint32_t>(magnitude);
  const uint32_t finite = BitsOfFloat(FloatOfBits(bits) * 0x1p112f);
  const uint32_t quiet = magnitude > 0x0F800000 ? 0x7FC00000u : 0x7F800000u;
  return FloatOfBits(sign | (magnitude >= 0x0F800000 ? bits | quiet : finite));
}

// Sixteen bits each, in pieces of a known length.
template <class Convert>
void DecodeHalves(const uint8_t* bytes, float* out, int64_t n, Convert convert) {
  constexpr int kAtOnce = 16;
  int64_t i = 0;
  for (; i + kAtOnce <= n; i += kAtOnce, bytes += kAtOnce * sizeof(uint16_t)) {
    uint16_t halves[kAtOnce];
    std::memcpy(halves, bytes, sizeof(halves));
    for (int j = 0; j < kAtOnce; ++j) out[i + j] = convert(halves[j]);
  }
  ConvertEach<uint16_t>(bytes, out + i, n - i, convert);
}

}  // namespace

void DequantizeRow(DType type, const void* row, float* out, int64_t n) {
  const int64_t size = RowBytes(type, n);
  const int64_t block = BlockSize(type);
  const auto* bytes = static_cast<const uint8_t*>(row);
  const auto cast = [](auto value) { return static_cast<float>(value); };
  switch (type) {
    case DType::kF32:
      if (size > 0) std::memcpy(out, bytes, static_cast<size_t>(size));
      return;
    case DType::kF16:
      return DecodeHalves(bytes, out, n, [](uint16_t h) { return F16ToFloatBranchless(h); });
    case DType::kBF16:
      return DecodeHalves(bytes, out, n, [](uint16_t h) { return BF16ToFloat(h); });
    case DType::kF64:
      return ConvertEach<double>(bytes, out, n, cast);
    case DType::kI8:
      return ConvertEach<int8_t>(bytes, out, n, cast);
    case DType::kI16:
      return ConvertEach<int16_t>(bytes, out, n, cast);
    case DType::kI32:
      return ConvertEach<int32_t>(bytes, out, n, cast);
    case DType::kI64:
      return ConvertEach<int64_t>(bytes, out, n, cast);
    case DType::kQ4_0:
      return DecodeBlocks<BlockQ4_0>(bytes, out, n, block);
    case DType::kQ4_1:
      return DecodeBlocks<BlockQ4_1>(bytes, out, n, block);
    case DType::kQ5_0:
      return DecodeBlocks<BlockQ5_0>(bytes, out, n, block);
    case DType::kQ5_1:
      return DecodeBlocks<BlockQ5_1>(bytes, out, n, block);
    case DType::kQ8_0:
      return DecodeBlocks<BlockQ8_0>(bytes, out, n, block);
    case DType::kQ2_K:
      return DecodeBlocks<BlockQ2_K>(bytes, out, n, block);
    case DType::kQ3_K:
      return DecodeBlocks<BlockQ3_K>(bytes, out, n, block);
    case DType::kQ4_K:
      return DecodeBlocks<BlockQ4_K>(bytes, out, n, block);
    case DType::kQ5_K:
      return DecodeBlocks<BlockQ5_K>(bytes, out, n, block);
    case DType::kQ6_K:
      return DecodeBlocks<BlockQ6_K>(bytes, out, n, block);
    case DType::kIQ4_NL:
      return DecodeBlocks<BlockIQ4_NL>(bytes, out, n, block);
    case DType::kIQ4_XS:
      return DecodeBlocks<BlockIQ4_XS>(bytes, out, n, block);
    case DType::kMXFP4:
      return DecodeBlocks<BlockMXFP4>(bytes, out, n, block);
  }
}

}  // namespace bakestone
