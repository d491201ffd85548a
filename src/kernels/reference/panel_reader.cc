#include "kernels/reference/panel_reader.h"

#include <cstring>

#include "tensor/blocks.h"
#include "tensor/half.h"

namespace bakestone::reference {
namespace {

struct Planes {
  const uint8_t *low, *high, *side;
};

Planes PlanesOf(const Panel& panel, int64_t row, int64_t block) {
  const PanelShape shape = PanelShapeOf(panel.type);
  const int64_t blocks = PanelBlocks(panel.type, panel.k);
  const uint8_t* strip = panel.data + row / kStripRows * StripBytes(panel.type, panel.k);
  const uint8_t* high = strip + blocks * shape.low;
  const uint8_t* side = high + blocks * shape.high;
  return {strip + block * shape.low, high + block * shape.high, side + block * shape.side};
}

// Bits of weight k in [0, 32) of a lane, from the plane's bytes of these 32.
int Byte(const uint8_t* p, int lane, int k) { return p[k / 4 * 64 + lane * 4 + k % 4]; }

int Nibble(const uint8_t* p, int lane, int k) {
  const int byte = p[k % 16 / 4 * 64 + lane * 4 + k % 4];
  return k < 16 ? byte & 15 : byte >> 4;
}

int TwoBits(const uint8_t* p, int lane, int k) {
  return (p[k / 16 * 64 + lane * 4 + k % 4] >> (k % 16 / 4 * 2)) & 3;
}

int OneBit(const uint8_t* p, int lane, int k) { return (p[lane * 4 + k % 4] >> (k / 4)) & 1; }

float Half(const uint8_t* p, int lane) {
  uint16_t bits;
  std::memcpy(&bits, p + 2 * lane, 2);
  return F16ToFloat(bits);
}

// Scale of group g of 16 weights, from Q3_K's 12 bytes.
int ScaleQ3K(const uint8_t* side, int lane, int g) {
  const int packed = side[g % 8 * 16 + lane];
  const int low = g < 8 ? packed & 15 : packed >> 4;
  const int high = (side[(8 + g % 4) * 16 + lane] >> (g / 4 * 2)) & 3;
  return (low | high << 4) - 32;
}

int QuantSuper(PanelType type, const Planes& p, int lane, int k) {
  const int sub = k / 32, j = k % 32;
  switch (type) {
    case PanelType::kQ2_K:
      return TwoBits(p.low + sub * 128, lane, j);
    case PanelType::kQ3_K:
      return (TwoBits(p.low + sub * 128, lane, j) | OneBit(p.high + sub * 64, lane, j) << 2) - 4;
    case PanelType::kQ4_K:
      return Nibble(p.low + sub * 256, lane, j);
    case PanelType::kQ5_K:
      return Nibble(p.low + sub * 256, lane, j) | OneBit(p.high + sub * 64, lane, j) << 4;
    case PanelType::kQ6_K:
      return (Nibble(p.low + sub * 256, lane, j) | TwoBits(p.high + sub * 128, lane, j) << 4) - 32;
    default:
      return kIQ4Values[Nibble(p.low + sub * 256, lane, j)];
  }
}

void ReadScales(PanelType type, const uint8_t* side, int lane, SuperBlock& out) {
  out.d = Half(side, lane);
  out.dmin = HasMin(type) ? Half(side + 32, lane) : 0.0f;
  for (int g = 0; g < 16; ++g) {
    out.min[g] = 0;
    switch (type) {
      case PanelType::kQ2_K:
        out.scale[g] = side[64 + g * 16 + lane] & 15;
        out.min[g] = side[64 + g * 16 + lane] >> 4;
        break;
      case PanelType::kQ3_K:
        out.scale[g] = ScaleQ3K(side + 32, lane, g);
        break;
      case PanelType::kQ4_K:
      case PanelType::kQ5_K:
        out.scale[g] = side[64 + g / 2 * 16 + lane];
        out.min[g] = side[192 + g / 2 * 16 + lane];
        break;
      case PanelType::kQ6_K:
        out.scale[g] = static_cast<int8_t>(side[32 + g * 16 + lane]);
        break;
      default:
        out.scale[g] = static_cast<int8_t>(side[32 + g / 2 * 16 + lane]);
        break;
    }
  }
}

}  // namespace

bool HasMin(PanelType type) {
  return type == PanelType::kQ4_1 || type == PanelType::kQ5_1 || type == PanelType::kQ2_K ||
         type == PanelType::kQ4_K || type == PanelType::kQ5_K;
}

Block32 ReadBlock32(const Panel& panel, int64_t row, int64_t block) {
  const Planes p = PlanesOf(panel, row, block);
  const int lane = static_cast<int>(row % kStripRows);
  Block32 out;
  for (int k = 0; k < 32; ++k) {
    int& q = out.q[k];
    switch (panel.type) {
      case PanelType::kQ4_0:
        q = Nibble(p.low, lane, k) - 8;
        break;
      case PanelType::kQ4_1:
        q = Nibble(p.low, lane, k);
        break;
      case PanelType::kQ5_0:
        q = (Nibble(p.low, lane, k) | OneBit(p.high, lane, k) << 4) - 16;
        break;
      case PanelType::kQ5_1:
        q = Nibble(p.low, lane, k) | OneBit(p.high, lane, k) << 4;
        break;
      case PanelType::kQ8_0:
        q = Byte(p.low, lane, k) - 128;
        break;
      case PanelType::kIQ4_NL:
        q = kIQ4Values[Nibble(p.low, lane, k)];
        break;
      default:
        q = kMXFP4Values[Nibble(p.low, lane, k)];
        break;
    }
  }
  out.d = panel.type == PanelType::kMXFP4 ? E8M0ToFloatHalf(p.side[lane]) : Half(p.side, lane);
  out.m = HasMin(panel.type) ? Half(p.side + 32, lane) : 0.0f;
  return out;
}

SuperBlock ReadSuperBlock(const Panel& panel, int64_t row, int64_t block) {
  const Planes p = PlanesOf(panel, row, block);
  const int lane = static_cast<int>(row % kStripRows);
  SuperBlock out;
  for (int k = 0; k < 256; ++k) out.q[k] = QuantSuper(panel.type, p, lane, k);
  ReadScales(panel.type, p.side, lane, out);
  return out;
}

float ReadPlain(const Panel& panel, int64_t row, int64_t k) {
  const uint8_t* strip = panel.data + row / kStripRows * StripBytes(panel.type, panel.k);
  const int64_t lane = row % kStripRows;
  if (panel.type == PanelType::kF32) {
    float value;
    std::memcpy(&value, strip + (k * 16 + lane) * 4, 4);
    return value;
  }
  uint16_t bits;
  if (panel.type == PanelType::kF16) {
    std::memcpy(&bits, strip + (k * 16 + lane) * 2, 2);
    return F16ToFloat(bits);
  }
  std::memcpy(&bits, strip + (k / 2 * 32 + lane * 2 + k % 2) * 2, 2);
  return BF16ToFloat(bits);
}

void DequantizeRow(const Panel& panel, int64_t row, int64_t k0, int64_t k1, float* out) {
  const int64_t block = PanelShapeOf(panel.type).block;
  if (block == 2) {
    for (int64_t k = k0; k < k1; ++k) out[k - k0] = ReadPlain(panel, row, k);
    return;
  }
  for (int64_t k = k0; k < k1; k += block, out += block) {
    if (block == 32) {
      const Block32 b = ReadBlock32(panel, row, k / block);
      for (int j = 0; j < 32; ++j) {
        const float product = b.d * static_cast<float>(b.q[j]);
        out[j] = HasMin(panel.type) ? product + b.m : product;
      }
      continue;
    }
    const SuperBlock b = ReadSuperBlock(panel, row, k / block);
    for (int j = 0; j < 256; ++j) {
      const float scale = b.d * static_cast<float>(b.scale[j / 16]);
      const float product = scale * static_cast<float>(b.q[j]);
      out[j] = HasMin(panel.type) ? product - b.dmin * static_cast<float>(b.min[j / 16]) : product;
    }
  }
}

}  // namespace bakestone::reference
