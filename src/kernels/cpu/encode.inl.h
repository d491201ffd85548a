// f32 rows to the quantized blocks of files (tensor/blocks.h): sixteen groups of weights at a time
// are put side by side, searched for (encode_search.inl.h, encode_super.inl.h), and packed.
//
// The error that is made small is weighted: each weight counts as the importance of its column says
// (the mean square of the activation that it meets).
#pragma once

#include "kernels/cpu/encode_super.inl.h"
#include "kernels/panel.h"

namespace bakestone {
namespace {

// Codes of the weights, [kSize][kLanes] as Groups.
template <int kSize>
struct Codes {
  alignas(64) int8_t q[kSize * kLanes];

  // The codes of `count` neighbouring lanes, one group after another.
  BAKESTONE_INLINE void Take(int lane, int count, int8_t* out) const {
    for (int g = 0; g < count; ++g) {
      for (int i = 0; i < kSize; ++i) out[g * kSize + i] = q[i * kLanes + lane + g];
    }
  }
};

// Groups first, first + 1, ... of the rows from x on, row after row; beyond count lanes are empty:
// x = w = 0.
template <class G>
BAKESTONE_INLINE void LoadGroups(const EncodeArgs& args, int64_t first, int64_t count, G* g) {
  constexpr int kSize = G::kValues;
  const int64_t per_row = args.k / kSize;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    if (lane >= count) {
      for (int i = 0; i < kSize; ++i) g->x[i * kLanes + lane] = 0;
      for (int i = 0; i < kSize && !G::kAlike; ++i) g->w[i * kLanes + lane] = 0;
      continue;
    }
    const int64_t group = first + lane, column = group % per_row * kSize;
    const float* x = args.x + group / per_row * args.k + column;
    for (int i = 0; i < kSize; ++i) g->x[i * kLanes + lane] = x[i];
    for (int i = 0; i < kSize && !G::kAlike; ++i) {
      g->w[i * kLanes + lane] = args.importance != nullptr ? args.importance[column + i] : 1.0f;
    }
  }
}

// Codes of a scale and, for lines, an offset: the nearest levels.
template <class V, class Levels, class G>
BAKESTONE_INLINE void Assign(const G& g, typename V::F scale, typename V::F offset,
                             Codes<G::kValues>* codes) {
  const typename V::F inverse = InverseOrZero<V>(scale);
  const typename V::F shift = V::Mul(V::Sub(V::Zero(), offset), inverse);
  for (int i = 0; i < G::kValues; ++i) {
    const typename V::F q = Levels::Nearest(V::Fma(g.template X<V>(i), inverse, shift));
    V::StoreI8(codes->q + i * kLanes, V::Nearest(q));
  }
}

// From a level to its position in the tables of the file's format: its own copy, because the tables
// themselves are inline variables, which an object of a newer ISA may not emit.
struct CodeTables {
  uint8_t iq4[256];   // by level + 128
  uint8_t mxfp4[25];  // by level + 12
};
constexpr CodeTables MakeCodeTables() {
  CodeTables t{};
  for (int code = 0; code < 16; ++code) t.iq4[kIQ4Values[code] + 128] = static_cast<uint8_t>(code);
  for (int code = 15; code >= 0; --code) {  // 0 has two codes, of which the lower is meant
    t.mxfp4[kMXFP4Values[code] + 12] = static_cast<uint8_t>(code);
  }
  return t;
}
constexpr CodeTables kCodes = MakeCodeTables();

BAKESTONE_INLINE int8_t CodeOfIQ4(int level) {
  return static_cast<int8_t>(kCodes.iq4[level + 128]);
}
BAKESTONE_INLINE int8_t CodeOfMXFP4(int level) {
  return static_cast<int8_t>(kCodes.mxfp4[level + 12]);
}

// ---- Blocks of 32 ----

BAKESTONE_INLINE void PackNibbles(const int8_t* q, uint8_t* qs) {  // 32 codes of 4 bits
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4);
}
BAKESTONE_INLINE void PackFifthBits(const int8_t* q, uint8_t* qh) {
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int j = 0; j < 8; ++j) bits |= (q[8 * byte + j] >> 4 & 1) << j;
    qh[byte] = static_cast<uint8_t>(bits);
  }
}

struct FormQ4_0 {
  using Block = BlockQ4_0;
  template <class V>
  using Levels = UniformLevels<V, -8, 7>;
  // The level that the peak falls on: the far end or a little beyond, either sign.
  static constexpr LevelGrid kGrids[] = {
      {-6.0f, -0.125f, 33}, {6.0f, 0.125f, 25}, {-10.5f, -0.5f, 10}, {9.5f, 0.5f, 10}};
  static constexpr int kPolish = 3;
  static constexpr LevelGrid kFastGrids[] = {{-8.0f, 0.75f, 2}};
  static constexpr int kFastPolish = 2;
  BAKESTONE_INLINE static void Pack(uint16_t d, int8_t* q, Block* b) {
    b->d = d;
    for (int j = 0; j < 32; ++j) q[j] = static_cast<int8_t>(q[j] + 8);
    PackNibbles(q, b->qs);
  }
};

struct FormQ5_0 {
  using Block = BlockQ5_0;
  template <class V>
  using Levels = UniformLevels<V, -16, 15>;
  static constexpr LevelGrid kGrids[] = {
      {-12.5f, -0.125f, 49}, {12.5f, 0.125f, 41}, {-19.0f, -0.5f, 24}, {18.0f, 0.5f, 24}};
  static constexpr int kPolish = 3;
  static constexpr LevelGrid kFastGrids[] = {{-16.0f, 1.0f, 2}};
  static constexpr int kFastPolish = 2;
  BAKESTONE_INLINE static void Pack(uint16_t d, int8_t* q, Block* b) {
    b->d = d;
    for (int j = 0; j < 32; ++j) q[j] = static_cast<int8_t>(q[j] + 16);
    PackNibbles(q, b->qs);
    PackFifthBits(q, b->qh);
  }
};

struct FormQ8_0 {
  using Block = BlockQ8_0;
  template <class V>
  using Levels = UniformLevels<V, -127, 127>;
  static constexpr LevelGrid kGrids[] = {{120.0f, 0.125f, 65}, {129.0f, 1.0f, 24}};
  static constexpr int kPolish = 2;
  static constexpr LevelGrid kFastGrids[] = {{125.0f, 1.0f, 4}};
  static constexpr int kFastPolish = 1;
  BAKESTONE_INLINE static void Pack(uint16_t d, int8_t* q, Block* b) {
    b->d = d;
    for (int j = 0; j < 32; ++j) b->qs[j] = q[j];
  }
};

struct FormIQ4_NL {
  using Block = BlockIQ4_NL;
  template <class V>
  using Levels = IQ4Levels<V>;
  static constexpr LevelGrid kGrids[] = {
      {-98.0f, -2.0f, 25}, {92.0f, 2.0f, 20}, {-152.0f, -6.0f, 12}, {136.0f, 6.0f, 12}};
  static constexpr int kPolish = 3;
  static constexpr LevelGrid kFastGrids[] = {{-127.0f, 14.0f, 2}, {113.0f, 1.0f, 1}};
  static constexpr int kFastPolish = 1;
  BAKESTONE_INLINE static void Pack(uint16_t d, int8_t* q, Block* b) {
    b->d = d;
    for (int j = 0; j < 32; ++j) q[j] = CodeOfIQ4(q[j]);
    PackNibbles(q, b->qs);
  }
};

// The grids of a form, or the few candidates of its fast search.
template <class V, class Form, bool kFast, class G>
BAKESTONE_INLINE BestScale<V> SearchScaleOf(const G& g) {
  using Levels = typename Form::template Levels<V>;
  if constexpr (kFast) {
    return SearchScale<V, Levels, Form::kFastPolish>(
        g, Form::kFastGrids, static_cast<int>(sizeof(Form::kFastGrids) / sizeof(LevelGrid)));
  } else {
    return SearchScale<V, Levels, Form::kPolish>(
        g, Form::kGrids, static_cast<int>(sizeof(Form::kGrids) / sizeof(LevelGrid)));
  }
}

template <class V, class Form, bool kFast>
void EncodeScaled(const EncodeArgs& args, Range rows) noexcept {
  using Levels = typename Form::template Levels<V>;
  const int64_t per_row = args.k / 32, end = rows.end * per_row;
  auto* blocks = reinterpret_cast<typename Form::Block*>(args.blocks);
  Groups<32, kFast> g;
  Codes<32> codes;
  for (int64_t first = rows.begin * per_row; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    LoadGroups(args, first, count, &g);
    const BestScale<V> best = SearchScaleOf<V, Form, kFast>(g);
    const typename V::F scale = RoundToHalf<V>(best.scale);
    Assign<V, Levels>(g, scale, V::Zero(), &codes);
    alignas(64) float d[kLanes];
    V::Store(d, scale);
    for (int lane = 0; lane < count; ++lane) {
      int8_t q[32];
      codes.Take(lane, 1, q);
      Form::Pack(FloatToF16(d[lane]), q, blocks + first + lane);
    }
  }
}

// The scale is a power of two: those around the one that brings the peak to the largest level.
template <class V>
void EncodeMXFP4(const EncodeArgs& args, Range rows) noexcept {
  using Levels = MXFP4Levels<V>;
  const int64_t per_row = args.k / 32, end = rows.end * per_row;
  auto* blocks = reinterpret_cast<BlockMXFP4*>(args.blocks);
  Groups<32> g;
  Codes<32> codes;
  for (int64_t first = rows.begin * per_row; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    LoadGroups(args, first, count, &g);
    alignas(64) float peak[kLanes], scale[kLanes];
    V::Store(peak, V::Abs(Peak<V>(g)));
    BestScale<V> best = {V::Set(3e38f), V::Zero()};
    for (int step = -2; step <= 1; ++step) {
      for (int lane = 0; lane < kLanes; ++lane) {
        int e = static_cast<int>(BitsOfFloat(peak[lane] / 6) >> 23) + step + 1;
        e = e < 0 ? 0 : e > 254 ? 254 : e;
        scale[lane] = E8M0ToFloatHalf(static_cast<uint8_t>(e));
      }
      best.Offer(FitScale<V, Levels>(g, V::Load(scale)).error, V::Load(scale));
    }
    Assign<V, Levels>(g, best.scale, V::Zero(), &codes);
    V::Store(scale, best.scale);
    for (int lane = 0; lane < count; ++lane) {
      int8_t q[32];
      codes.Take(lane, 1, q);
      for (int8_t& code : q) code = CodeOfMXFP4(code);
      BlockMXFP4* b = blocks + first + lane;
      const uint32_t bits = BitsOfFloat(scale[lane]);
      b->e = static_cast<uint8_t>(bits < 0x00800000u ? bits >> 22 : (bits >> 23) + 1);
      PackNibbles(q, b->qs);
    }
  }
}

struct FormQ4_1 {
  using Block = BlockQ4_1;
  static constexpr int kMost = 15;
  BAKESTONE_INLINE static void Pack(uint16_t d, uint16_t m, const int8_t* q, Block* b) {
    b->d = d;
    b->m = m;
    PackNibbles(q, b->qs);
  }
};

struct FormQ5_1 {
  using Block = BlockQ5_1;
  static constexpr int kMost = 31;
  BAKESTONE_INLINE static void Pack(uint16_t d, uint16_t m, const int8_t* q, Block* b) {
    b->d = d;
    b->m = m;
    PackNibbles(q, b->qs);
    PackFifthBits(q, b->qh);
  }
};

// Both ends alike, one end, or the other: from a little outside the range to well inside it, for
// groups whose ends matter little.
inline constexpr RangeCut kCuts[] = {
    {0.25f, 0.25f}, {0, 0},         {-0.2f, -0.2f}, {-0.4f, -0.4f}, {-0.6f, -0.6f}, {-0.8f, -0.8f},
    {-1.1f, -1.1f}, {-1.5f, -1.5f}, {-2.2f, -2.2f}, {-3.0f, -3.0f}, {-0.5f, 0},     {-1.0f, 0},
    {-1.5f, 0},     {-2.2f, 0},     {-3.2f, 0},     {-4.5f, 0},     {0, -0.5f},     {0, -1.0f},
    {0, -1.5f},     {0, -2.2f},     {0, -3.2f},     {0, -4.5f},
};
inline constexpr int kNumCuts = sizeof(kCuts) / sizeof(RangeCut);

// Of the fast search: a little inside the range, and a little outside.
inline constexpr RangeCut kFastCuts[] = {{0.25f, 0.25f}, {-0.4f, -0.4f}};
inline constexpr int kNumFastCuts = sizeof(kFastCuts) / sizeof(RangeCut);

template <class V, int kMost, bool kUpTo0, bool kFast, class G>
BAKESTONE_INLINE BestLine<V> SearchLineOf(const G& g) {
  if constexpr (kFast) {
    return SearchLine<V, kMost, kUpTo0, 3, 0>(g, kFastCuts, kNumFastCuts);
  } else {
    return SearchLine<V, kMost, kUpTo0, kUpTo0 ? 2 : 3, 3>(g, kCuts, kNumCuts);
  }
}

template <class V, class Form, bool kFast>
void EncodeLine(const EncodeArgs& args, Range rows) noexcept {
  constexpr int kMost = Form::kMost;
  const int64_t per_row = args.k / 32, end = rows.end * per_row;
  auto* blocks = reinterpret_cast<typename Form::Block*>(args.blocks);
  Groups<32, kFast> g;
  Codes<32> codes;
  for (int64_t first = rows.begin * per_row; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    LoadGroups(args, first, count, &g);
    const BestLine<V> best = SearchLineOf<V, kMost, false, kFast>(g);
    const typename V::F scale = RoundToHalf<V>(best.scale);
    const typename V::F offset = RoundToHalf<V>(best.offset);
    Assign<V, UniformLevels<V, 0, kMost>>(g, scale, offset, &codes);
    alignas(64) float d[kLanes], m[kLanes];
    V::Store(d, scale);
    V::Store(m, offset);
    for (int lane = 0; lane < count; ++lane) {
      int8_t q[32];
      codes.Take(lane, 1, q);
      Form::Pack(FloatToF16(d[lane]), FloatToF16(m[lane]), q, blocks + first + lane);
    }
  }
}

}  // namespace
}  // namespace bakestone
