#include "kernels/pack.h"

#include <cstring>

#include "tensor/blocks.h"

namespace bakestone {
namespace {

// Writers of one row's lane; the readers are in reference/panel_reader.cc. q holds 32 raw quants,
// each in the bits from `shift` on of its byte, and four of them are moved as one word.

uint32_t LoadWord(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}
void StoreWord(uint8_t* p, uint32_t word) { std::memcpy(p, &word, 4); }

void PutNibbles(uint8_t* plane, const uint8_t* q, int shift) {
  constexpr uint32_t kMask = 0x0F0F0F0F;
  for (int j = 0; j < 4; ++j) {
    const uint32_t low = LoadWord(q + 4 * j) >> shift & kMask,
                   high = LoadWord(q + 16 + 4 * j) >> shift & kMask;
    StoreWord(plane + j * 64, low | high << 4);
  }
}

void PutTwoBits(uint8_t* plane, const uint8_t* q, int shift) {
  for (int v = 0; v < 2; ++v) {
    uint32_t word = 0;
    for (int s = 0; s < 4; ++s) {
      word |= (LoadWord(q + 16 * v + 4 * s) >> shift & 0x03030303) << (2 * s);
    }
    StoreWord(plane + v * 64, word);
  }
}

void PutBits(uint8_t* plane, const uint8_t* q, int shift) {
  uint32_t word = 0;
  for (int g = 0; g < 8; ++g) word |= (LoadWord(q + 4 * g) >> shift & 0x01010101) << g;
  StoreWord(plane, word);
}

void PutHalf(uint8_t* side, int lane, uint16_t bits) { std::memcpy(side + 2 * lane, &bits, 2); }

// Where one block of one lane goes: low and high already point at the lane.
struct Target {
  uint8_t *low, *high, *side;
  int lane;
};

// The nibbles of a block of 32 already pair weights j and j + 16, as the panel does.
void PutPairedNibbles(uint8_t* plane, const uint8_t* qs) {
  for (int j = 0; j < 4; ++j) std::memcpy(plane + j * 64, qs + 4 * j, 4);
}

void PutFifthBits(uint8_t* plane, const uint8_t* qh) {
  uint8_t bits[32];
  for (int k = 0; k < 32; ++k) bits[k] = static_cast<uint8_t>(qh[k / 8] >> (k % 8));
  PutBits(plane, bits, 0);
}

template <class Block>
void PutSimple(const Block& b, const Target& t) {  // Q4_0, IQ4_NL
  PutPairedNibbles(t.low, b.qs);
  PutHalf(t.side, t.lane, b.d);
}
void Put(const BlockQ4_0& b, const Target& t) { PutSimple(b, t); }
void Put(const BlockIQ4_NL& b, const Target& t) { PutSimple(b, t); }

void Put(const BlockQ4_1& b, const Target& t) {
  PutSimple(b, t);
  PutHalf(t.side + 32, t.lane, b.m);
}

void Put(const BlockQ5_0& b, const Target& t) {
  PutSimple(b, t);
  PutFifthBits(t.high, b.qh);
}

void Put(const BlockQ5_1& b, const Target& t) {
  PutSimple(b, t);
  PutFifthBits(t.high, b.qh);
  PutHalf(t.side + 32, t.lane, b.m);
}

void Put(const BlockQ8_0& b, const Target& t) {
  for (int g = 0; g < 8; ++g) {
    uint32_t word;
    std::memcpy(&word, b.qs + 4 * g, 4);
    word ^= 0x80808080u;  // biased by 128
    std::memcpy(t.low + g * 64, &word, 4);
  }
  PutHalf(t.side, t.lane, b.d);
}

void Put(const BlockMXFP4& b, const Target& t) {
  PutPairedNibbles(t.low, b.qs);
  t.side[t.lane] = b.e;
}

// Two bits of the 32 weights `sub` of a super-block, as Q2_K and Q3_K store them.
void PutFileTwoBits(const uint8_t* qs, int sub, uint8_t* plane) {
  PutTwoBits(plane, qs + sub / 4 * 32, sub % 4 * 2);
}

void Put(const BlockQ2_K& b, const Target& t) {
  for (int sub = 0; sub < 8; ++sub) PutFileTwoBits(b.qs, sub, t.low + sub * 128);
  PutHalf(t.side, t.lane, b.d);
  PutHalf(t.side + 32, t.lane, b.dmin);
  for (int g = 0; g < 16; ++g) t.side[64 + g * 16 + t.lane] = b.scales[g];
}

void Put(const BlockQ3_K& b, const Target& t) {
  for (int sub = 0; sub < 8; ++sub) {
    PutFileTwoBits(b.qs, sub, t.low + sub * 128);
    PutBits(t.high + sub * 64, b.hmask, sub);
  }
  PutHalf(t.side, t.lane, b.d);
  for (int g = 0; g < 12; ++g) t.side[32 + g * 16 + t.lane] = b.scales[g];
}

// The 6-bit scales and minima of Q4_K and Q5_K (blocks.h), one byte each.
void PutScaleMin(const uint8_t* s, uint8_t* side, int lane) {
  for (int j = 0; j < 8; ++j) {
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    side[64 + j * 16 + lane] = static_cast<uint8_t>(scale);
    side[192 + j * 16 + lane] = static_cast<uint8_t>(min);
  }
}

template <class Block>
void PutNibbleSuper(const Block& b, const Target& t) {
  for (int sub = 0; sub < 8; ++sub) {
    PutNibbles(t.low + sub * 256, b.qs + sub / 2 * 32, sub % 2 * 4);
  }
  PutHalf(t.side, t.lane, b.d);
  PutHalf(t.side + 32, t.lane, b.dmin);
  PutScaleMin(b.scales, t.side, t.lane);
}

void Put(const BlockQ4_K& b, const Target& t) { PutNibbleSuper(b, t); }

void Put(const BlockQ5_K& b, const Target& t) {
  PutNibbleSuper(b, t);
  for (int sub = 0; sub < 8; ++sub) PutBits(t.high + sub * 64, b.qh, sub);
}

void Put(const BlockQ6_K& b, const Target& t) {
  for (int sub = 0; sub < 8; ++sub) {
    const int half = sub / 4, quarter = sub % 4;
    PutNibbles(t.low + sub * 256, b.ql + 64 * half + 32 * (quarter % 2), quarter < 2 ? 0 : 4);
    PutTwoBits(t.high + sub * 128, b.qh + 32 * half, 2 * quarter);
  }
  PutHalf(t.side, t.lane, b.d);
  for (int g = 0; g < 16; ++g) {
    t.side[32 + g * 16 + t.lane] = static_cast<uint8_t>(b.scales[g]);
  }
}

void Put(const BlockIQ4_XS& b, const Target& t) {
  for (int sub = 0; sub < 8; ++sub) PutPairedNibbles(t.low + sub * 256, b.qs + sub * 16);
  PutHalf(t.side, t.lane, b.d);
  for (int g = 0; g < 8; ++g) {
    const int low = (b.scales_l[g / 2] >> (g % 2 * 4)) & 15, high = (b.scales_h >> (2 * g)) & 3;
    t.side[32 + g * 16 + t.lane] = static_cast<uint8_t>((low | high << 4) - 32);
  }
}

template <class Block>
void PackRow(PanelType type, const uint8_t* row, int64_t k, uint8_t* strip, int lane) {
  const PanelShape shape = PanelShapeOf(type);
  const int64_t blocks = k / shape.block;
  uint8_t* low = strip + lane * 4;
  uint8_t* high = strip + blocks * shape.low + lane * 4;
  uint8_t* side = strip + blocks * (shape.low + shape.high);
  for (int64_t i = 0; i < blocks; ++i) {
    Block block;  // copied: blocks of a file are aligned to 1 byte
    std::memcpy(&block, row + i * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
    Put(block, {low, high, side, lane});
    low += shape.low;
    high += shape.high;
    side += shape.side;
  }
}

// A strip of whole rows of words (f32, pairs of bf16), [16][words] to [words][16]: four by four, so
// that each row's and each output's line is used while it is in the cache.
void PackWords(const uint8_t* const (&rows)[kStripRows], int64_t words, uint8_t* strip) {
  typedef uint32_t Four __attribute__((vector_size(16)));
  int64_t w = 0;
  for (; w + 4 <= words; w += 4) {
    uint8_t* to = strip + w * 64;
    for (int r = 0; r < kStripRows; r += 4) {
      Four a, b, c, d;
      std::memcpy(&a, rows[r] + 4 * w, 16);
      std::memcpy(&b, rows[r + 1] + 4 * w, 16);
      std::memcpy(&c, rows[r + 2] + 4 * w, 16);
      std::memcpy(&d, rows[r + 3] + 4 * w, 16);
      const Four ac_low = __builtin_shufflevector(a, c, 0, 4, 1, 5),
                 ac_high = __builtin_shufflevector(a, c, 2, 6, 3, 7),
                 bd_low = __builtin_shufflevector(b, d, 0, 4, 1, 5),
                 bd_high = __builtin_shufflevector(b, d, 2, 6, 3, 7);
      const Four out[4] = {__builtin_shufflevector(ac_low, bd_low, 0, 4, 1, 5),
                           __builtin_shufflevector(ac_low, bd_low, 2, 6, 3, 7),
                           __builtin_shufflevector(ac_high, bd_high, 0, 4, 1, 5),
                           __builtin_shufflevector(ac_high, bd_high, 2, 6, 3, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(to + i * 64 + r * 4, &out[i], 16);
    }
  }
  for (; w < words; ++w) {
    for (int r = 0; r < kStripRows; ++r) {
      StoreWord(strip + w * 64 + r * 4, LoadWord(rows[r] + 4 * w));
    }
  }
}

template <class T>
void PackPlain(const uint8_t* row, int64_t k, uint8_t* strip, int lane) {
  for (int64_t i = 0; i < k; ++i) {
    std::memcpy(strip + (i * 16 + lane) * static_cast<int64_t>(sizeof(T)),
                row + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  }
}

void PackPairs(const uint8_t* row, int64_t k, uint8_t* strip, int lane) {
  uint8_t* to = strip + lane * 4;
  for (int64_t i = 0; i + 2 <= k; i += 2, to += 64) std::memcpy(to, row + i * 2, 4);
  if (k % 2 != 0) std::memcpy(to, row + (k - 1) * 2, 2);
}

void PackOneRow(PanelType type, const uint8_t* row, int64_t k, uint8_t* strip, int lane) {
  switch (type) {
    case PanelType::kF32:
      return PackPlain<float>(row, k, strip, lane);
    case PanelType::kF16:
      return PackPlain<uint16_t>(row, k, strip, lane);
    case PanelType::kBF16:
      return PackPairs(row, k, strip, lane);
    case PanelType::kQ4_0:
      return PackRow<BlockQ4_0>(type, row, k, strip, lane);
    case PanelType::kQ4_1:
      return PackRow<BlockQ4_1>(type, row, k, strip, lane);
    case PanelType::kQ5_0:
      return PackRow<BlockQ5_0>(type, row, k, strip, lane);
    case PanelType::kQ5_1:
      return PackRow<BlockQ5_1>(type, row, k, strip, lane);
    case PanelType::kQ8_0:
      return PackRow<BlockQ8_0>(type, row, k, strip, lane);
    case PanelType::kQ2_K:
      return PackRow<BlockQ2_K>(type, row, k, strip, lane);
    case PanelType::kQ3_K:
      return PackRow<BlockQ3_K>(type, row, k, strip, lane);
    case PanelType::kQ4_K:
      return PackRow<BlockQ4_K>(type, row, k, strip, lane);
    case PanelType::kQ5_K:
      return PackRow<BlockQ5_K>(type, row, k, strip, lane);
    case PanelType::kQ6_K:
      return PackRow<BlockQ6_K>(type, row, k, strip, lane);
    case PanelType::kIQ4_NL:
      return PackRow<BlockIQ4_NL>(type, row, k, strip, lane);
    case PanelType::kIQ4_XS:
      return PackRow<BlockIQ4_XS>(type, row, k, strip, lane);
    case PanelType::kMXFP4:
      return PackRow<BlockMXFP4>(type, row, k, strip, lane);
  }
}

// By PanelType.
constexpr DType kDiskTypes[kNumPanelTypes] = {
    DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
    DType::kQ5_1, DType::kQ8_0,   DType::kQ2_K,   DType::kQ3_K, DType::kQ4_K, DType::kQ5_K,
    DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

}  // namespace

std::optional<PanelType> PanelTypeOf(DType type) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    if (kDiskTypes[i] == type) return static_cast<PanelType>(i);
  }
  return std::nullopt;
}

DType DiskTypeOf(PanelType type) { return kDiskTypes[static_cast<int>(type)]; }

void PackStrips(const PackArgs& args, Range strips) noexcept {
  const DType disk = DiskTypeOf(args.type);
  const int64_t row_bytes = args.k / BlockSize(disk) * BlockBytes(disk);
  const int64_t strip_bytes = StripBytes(args.type, args.k);
  const bool words =
      (args.type == PanelType::kF32 || args.type == PanelType::kBF16) && args.k % 2 == 0;
  for (int64_t s = strips.begin; s < strips.end; ++s) {
    uint8_t* strip = args.panel + s * strip_bytes;
    const int64_t first = s * kStripRows;
    const uint8_t* rows[kStripRows];
    int lanes = 0;
    for (; lanes < kStripRows && first + lanes < args.n; ++lanes) {
      const int64_t row = first + lanes;
      rows[lanes] = args.rows + (args.row_map != nullptr ? args.row_map[row] : row) * row_bytes;
    }
    if (words && lanes == kStripRows) {
      PackWords(rows, row_bytes / 4, strip);
      continue;
    }
    std::memset(strip, 0, static_cast<size_t>(strip_bytes));
    for (int lane = 0; lane < lanes; ++lane) {
      PackOneRow(args.type, rows[lane], args.k, strip, lane);
    }
  }
}

}  // namespace bakestone
