// Super-blocks of 256 packed, and the encoding part of a table, filled from one vector class.
#pragma once

#include "kernels/cpu/encode.inl.h"

namespace bakestone {
namespace {

// What a super-block is made of, before packing.
struct SuperBlockParts {
  uint16_t d, dmin;
  int scale[16], min[16];  // of its groups
  int8_t q[256];
};

BAKESTONE_INLINE void PackTwoBits(const int8_t* q, uint8_t* qs) {
  for (int half = 0; half < 2; ++half) {
    for (int l = 0; l < 32; ++l) {
      int byte = 0;
      for (int s = 0; s < 4; ++s) byte |= (q[128 * half + 32 * s + l] & 3) << (2 * s);
      qs[32 * half + l] = static_cast<uint8_t>(byte);
    }
  }
}

// 64 weights to 32 bytes: low nibbles are the first 32.
BAKESTONE_INLINE void PackNibblesBy64(const int8_t* q, uint8_t* qs) {
  for (int part = 0; part < 4; ++part) {
    for (int l = 0; l < 32; ++l) {
      qs[32 * part + l] =
          static_cast<uint8_t>((q[64 * part + l] & 15) | (q[64 * part + 32 + l] & 15) << 4);
    }
  }
}

// Eight scales and minima of 6 bits in 12 bytes.
BAKESTONE_INLINE void PackSixBits(const SuperBlockParts& p, uint8_t* s) {
  for (int j = 0; j < 4; ++j) {
    s[j] = static_cast<uint8_t>(p.scale[j] | (p.scale[j + 4] >> 4) << 6);
    s[j + 4] = static_cast<uint8_t>(p.min[j] | (p.min[j + 4] >> 4) << 6);
    s[j + 8] = static_cast<uint8_t>((p.scale[j + 4] & 15) | (p.min[j + 4] & 15) << 4);
  }
}

struct FormQ2_K {
  using Block = BlockQ2_K;
  static constexpr int kGroups = 16, kMost = 3, kTop = 15;
  BAKESTONE_INLINE static void Pack(const SuperBlockParts& p, Block* b) {
    b->d = p.d;
    b->dmin = p.dmin;
    for (int g = 0; g < 16; ++g) b->scales[g] = static_cast<uint8_t>(p.scale[g] | p.min[g] << 4);
    PackTwoBits(p.q, b->qs);
  }
};

struct FormQ4_K {
  using Block = BlockQ4_K;
  static constexpr int kGroups = 8, kMost = 15, kTop = 63;
  BAKESTONE_INLINE static void Pack(const SuperBlockParts& p, Block* b) {
    b->d = p.d;
    b->dmin = p.dmin;
    PackSixBits(p, b->scales);
    PackNibblesBy64(p.q, b->qs);
  }
};

struct FormQ5_K {
  using Block = BlockQ5_K;
  static constexpr int kGroups = 8, kMost = 31, kTop = 63;
  BAKESTONE_INLINE static void Pack(const SuperBlockParts& p, Block* b) {
    b->d = p.d;
    b->dmin = p.dmin;
    PackSixBits(p, b->scales);
    PackNibblesBy64(p.q, b->qs);
    for (int l = 0; l < 32; ++l) {
      int bits = 0;
      for (int g = 0; g < 8; ++g) bits |= (p.q[32 * g + l] >> 4 & 1) << g;
      b->qh[l] = static_cast<uint8_t>(bits);
    }
  }
};

struct FormQ3_K {
  using Block = BlockQ3_K;
  static constexpr int kGroups = 16, kLow = -32, kHigh = 31, kPolish = 3;
  template <class V>
  using Levels = UniformLevels<V, -4, 3>;
  static constexpr LevelGrid kGrids[] = {
      {-2.5f, -0.125f, 21}, {2.25f, 0.125f, 17}, {-5.5f, -0.5f, 6}, {4.75f, 0.5f, 6}};
  static constexpr LevelGrid kFastGrids[] = {{-4.0f, 0.5f, 2}};
  static constexpr int kFastPolish = 1;
  BAKESTONE_INLINE static void Pack(const SuperBlockParts& p, Block* b) {
    b->d = p.d;
    int8_t q[256];
    for (int i = 0; i < 256; ++i) q[i] = static_cast<int8_t>(p.q[i] + 4);
    PackTwoBits(q, b->qs);
    for (int l = 0; l < 32; ++l) {
      int bits = 0;
      for (int i = 0; i < 8; ++i) bits |= (q[32 * i + l] >> 2 & 1) << i;
      b->hmask[l] = static_cast<uint8_t>(bits);
    }
    for (int g = 0; g < 4; ++g) {
      const int s[4] = {p.scale[g] + 32, p.scale[g + 4] + 32, p.scale[g + 8] + 32,
                        p.scale[g + 12] + 32};
      b->scales[g] = static_cast<uint8_t>((s[0] & 15) | (s[2] & 15) << 4);
      b->scales[g + 4] = static_cast<uint8_t>((s[1] & 15) | (s[3] & 15) << 4);
      b->scales[g + 8] =
          static_cast<uint8_t>(s[0] >> 4 | (s[1] >> 4) << 2 | (s[2] >> 4) << 4 | (s[3] >> 4) << 6);
    }
  }
};

struct FormQ6_K {
  using Block = BlockQ6_K;
  static constexpr int kGroups = 16, kLow = -128, kHigh = 127, kPolish = 2;
  template <class V>
  using Levels = UniformLevels<V, -32, 31>;
  static constexpr LevelGrid kGrids[] = {
      {-28.0f, -0.4f, 16}, {28.0f, 0.4f, 13}, {-35.5f, -2.0f, 10}, {34.5f, 2.0f, 10}};
  static constexpr LevelGrid kFastGrids[] = {{-32.5f, 0.5f, 4}};
  static constexpr int kFastPolish = 1;
  BAKESTONE_INLINE static void Pack(const SuperBlockParts& p, Block* b) {
    b->d = p.d;
    for (int g = 0; g < 16; ++g) b->scales[g] = static_cast<int8_t>(p.scale[g]);
    for (int half = 0; half < 2; ++half) {
      const int8_t* q = p.q + 128 * half;
      const auto code = [q](int i) __attribute__((always_inline)) { return q[i] + 32; };
      for (int l = 0; l < 32; ++l) {
        b->ql[64 * half + l] = static_cast<uint8_t>((code(l) & 15) | (code(l + 64) & 15) << 4);
        b->ql[64 * half + 32 + l] =
            static_cast<uint8_t>((code(l + 32) & 15) | (code(l + 96) & 15) << 4);
        b->qh[32 * half + l] =
            static_cast<uint8_t>(code(l) >> 4 | (code(l + 32) >> 4) << 2 |
                                 (code(l + 64) >> 4) << 4 | (code(l + 96) >> 4) << 6);
      }
    }
  }
};

struct FormIQ4_XS {
  using Block = BlockIQ4_XS;
  static constexpr int kGroups = 8, kLow = -32, kHigh = 31, kPolish = 3;
  template <class V>
  using Levels = IQ4Levels<V>;
  static constexpr LevelGrid kGrids[] = {
      {-98.0f, -2.0f, 25}, {92.0f, 2.0f, 20}, {-152.0f, -6.0f, 12}, {136.0f, 6.0f, 12}};
  static constexpr LevelGrid kFastGrids[] = {{-127.0f, 14.0f, 2}, {113.0f, 1.0f, 1}};
  static constexpr int kFastPolish = 1;
  BAKESTONE_INLINE static void Pack(const SuperBlockParts& p, Block* b) {
    b->d = p.d;
    int high = 0;
    for (int g = 0; g < 8; ++g) high |= ((p.scale[g] + 32) >> 4) << (2 * g);
    b->scales_h = static_cast<uint16_t>(high);
    for (int i = 0; i < 4; ++i) {
      b->scales_l[i] = static_cast<uint8_t>(((p.scale[2 * i] + 32) & 15) |
                                            ((p.scale[2 * i + 1] + 32) & 15) << 4);
    }
    int8_t q[32];
    for (int g = 0; g < 8; ++g) {
      for (int i = 0; i < 32; ++i) q[i] = CodeOfIQ4(p.q[32 * g + i]);
      PackNibbles(q, b->qs + 16 * g);
    }
  }
};

// The lanes of one search to their super-blocks.
template <class Form, int kSize>
BAKESTONE_INLINE void PackSuperBlocks(const Codes<kSize>& codes, const float* d, const float* dmin,
                                      const float* scale, const float* min, int64_t count,
                                      typename Form::Block* out) {
  constexpr int kGroups = Form::kGroups;
  SuperBlockParts parts;
  for (int lane = 0; lane < count; lane += kGroups) {
    parts.d = FloatToF16(d[lane]);
    parts.dmin = FloatToF16(dmin[lane]);
    for (int g = 0; g < kGroups; ++g) {
      parts.scale[g] = static_cast<int>(scale[lane + g]);
      parts.min[g] = static_cast<int>(min[lane + g]);
    }
    codes.Take(lane, kGroups, parts.q);
    Form::Pack(parts, out + lane / kGroups);
  }
}

template <class V, class Form, bool kFast>
void EncodeLineSuper(const EncodeArgs& args, Range rows) noexcept {
  constexpr int kGroups = Form::kGroups, kSize = 256 / kGroups, kMost = Form::kMost;
  const int64_t per_row = args.k / kSize, end = rows.end * per_row;
  auto* blocks = reinterpret_cast<typename Form::Block*>(args.blocks);
  Groups<kSize, kFast> g;
  Codes<kSize> codes;
  for (int64_t first = rows.begin * per_row; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    LoadGroups(args, first, count, &g);
    const BestLine<V> line = SearchLineOf<V, kMost, true, kFast>(g);
    const LineMultiples<V> best = kFast ? RoundSuperBlock<V, kGroups, kMost, Form::kTop>(g, line)
                                        : FitSuperBlock<V, kGroups, kMost, Form::kTop>(g, line);
    const typename V::F offset = V::Sub(V::Zero(), V::Mul(best.dmin, best.min));
    Assign<V, UniformLevels<V, 0, kMost>>(g, V::Mul(best.d, best.scale), offset, &codes);
    alignas(64) float d[kLanes], dmin[kLanes], scale[kLanes], min[kLanes];
    V::Store(d, best.d);
    V::Store(dmin, best.dmin);
    V::Store(scale, best.scale);
    V::Store(min, best.min);
    PackSuperBlocks<Form>(codes, d, dmin, scale, min, count, blocks + first / kGroups);
  }
}

template <class V, class Form, bool kFast>
void EncodeScaledSuper(const EncodeArgs& args, Range rows) noexcept {
  using Levels = typename Form::template Levels<V>;
  constexpr int kGroups = Form::kGroups, kSize = 256 / kGroups;
  const int64_t per_row = args.k / kSize, end = rows.end * per_row;
  auto* blocks = reinterpret_cast<typename Form::Block*>(args.blocks);
  Groups<kSize, kFast> g;
  Codes<kSize> codes;
  for (int64_t first = rows.begin * per_row; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    LoadGroups(args, first, count, &g);
    const BestScale<V> real = SearchScaleOf<V, Form, kFast>(g);
    const ScaleMultiples<V> best =
        kFast ? RoundSuperBlock<V, Levels, kGroups, Form::kLow, Form::kHigh>(g, real.scale)
              : FitSuperBlock<V, Levels, kGroups, Form::kLow, Form::kHigh>(g, real.scale);
    Assign<V, Levels>(g, V::Mul(best.d, best.scale), V::Zero(), &codes);
    alignas(64) float d[kLanes], scale[kLanes];
    V::Store(d, best.d);
    V::Store(scale, best.scale);
    PackSuperBlocks<Form>(codes, d, d, scale, scale, count, blocks + first / kGroups);
  }
}

// ---- Plain types ----

template <class V>
void EncodeF32(const EncodeArgs& args, Range rows) noexcept {
  __builtin_memcpy(args.blocks + rows.begin * args.k * 4, args.x + rows.begin * args.k,
                   static_cast<uint64_t>((rows.end - rows.begin) * args.k * 4));
}

template <class V, bool kBrain>
void EncodeHalf(const EncodeArgs& args, Range rows) noexcept {
  auto* out = reinterpret_cast<uint16_t*>(args.blocks);
  for (int64_t i = rows.begin * args.k; i < rows.end * args.k; ++i) {
    out[i] = kBrain ? FloatToBF16(args.x[i]) : FloatToF16(args.x[i]);
  }
}

template <class V, bool kFast>
constexpr void FillEncoders(EncodeRows (&rows)[kNumPanelTypes]) {
  const auto at = [&rows](PanelType type) -> auto& { return rows[static_cast<int>(type)]; };
  at(PanelType::kF32) = EncodeF32<V>;
  at(PanelType::kF16) = EncodeHalf<V, false>;
  at(PanelType::kBF16) = EncodeHalf<V, true>;
  at(PanelType::kQ4_0) = EncodeScaled<V, FormQ4_0, kFast>;
  at(PanelType::kQ4_1) = EncodeLine<V, FormQ4_1, kFast>;
  at(PanelType::kQ5_0) = EncodeScaled<V, FormQ5_0, kFast>;
  at(PanelType::kQ5_1) = EncodeLine<V, FormQ5_1, kFast>;
  at(PanelType::kQ8_0) = EncodeScaled<V, FormQ8_0, kFast>;
  at(PanelType::kQ2_K) = EncodeLineSuper<V, FormQ2_K, kFast>;
  at(PanelType::kQ3_K) = EncodeScaledSuper<V, FormQ3_K, kFast>;
  at(PanelType::kQ4_K) = EncodeLineSuper<V, FormQ4_K, kFast>;
  at(PanelType::kQ5_K) = EncodeLineSuper<V, FormQ5_K, kFast>;
  at(PanelType::kQ6_K) = EncodeScaledSuper<V, FormQ6_K, kFast>;
  at(PanelType::kIQ4_NL) = EncodeScaled<V, FormIQ4_NL, kFast>;
  at(PanelType::kIQ4_XS) = EncodeScaledSuper<V, FormIQ4_XS, kFast>;
  at(PanelType::kMXFP4) = EncodeMXFP4<V>;  // four scales are all that there are
}

template <class V>
constexpr EncodeKernels MakeEncodeTable() {
  EncodeKernels t{};
  FillEncoders<V, false>(t.rows);
  FillEncoders<V, true>(t.fast);
  return t;
}

}  // namespace
}  // namespace bakestone
