// How the reference reads and writes the pages of each KvElement (layouts: kernels/kernel_table.h),
// and the two products over them. A Row is one query row and head:
//   Row(tile, i)             its query, in the form that the pages ask for
//   Score(j)                 q . k_j, not scaled
//   Probability(e)           e = exp(s - m) as it enters sum and product
//   AddBlock(p, j0, acc)     acc += sum of p_j v_j over the 32 slots from j0 on
// For float pages both products are in pair order. For Q8_0 they are integer within 32: scores like
// a matrix product of Q8_0; for values the scales are folded into p, which is quantized per 32
// slots for each 32 channels.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/reference/reference.h"
#include "tensor/half.h"

namespace bakestone::reference {

inline constexpr int64_t kMaxHeadDim = 512;

// The rows of a tile: heads of the group fastest.
struct Tile {
  const AttentionArgs& args;
  const KvRun& run;
  const Range rows;
  const int64_t kv_head;

  int64_t group() const { return args.heads / args.kv_heads; }
  int64_t count() const { return (rows.end - rows.begin) * group(); }
  int64_t Last(int64_t i) const { return LastVisibleSlot(run, rows.begin + i / group()); }
  int64_t First(int64_t i) const {
    return FirstVisibleSlot(args, SlotOf(run, rows.begin + i / group()));
  }
  int64_t FirstSegment(int64_t i) const { return First(i) / kKvSegment * kKvSegment; }
  int64_t Head(int64_t i) const { return kv_head * group() + i % group(); }
  const float* Query(int64_t i) const {
    return args.q + (rows.begin + i / group()) * args.q_stride + Head(i) * args.head_dim;
  }
  float* Out(int64_t i) const {
    return args.out + (rows.begin + i / group()) * args.out_stride + Head(i) * args.head_dim;
  }
};

inline float FlushTiny(float x) { return std::fabs(x) < 0x1p-50f ? 0.0f : x; }

struct BF16 {
  using Type = uint16_t;
  static constexpr bool kPaired = true;
  static float Decode(uint16_t bits) { return BF16ToFloat(bits); }
  static uint16_t Encode(float x) { return FloatToBF16(RoundBF16(x)); }
  static float Query(float x) { return RoundBF16(x); }
  static float Probability(float e) { return RoundBF16(e); }
};

struct F16 {
  using Type = uint16_t;
  static constexpr bool kPaired = false;
  static float Decode(uint16_t bits) { return F16ToFloat(bits); }
  static uint16_t Encode(float x) {  // saturates
    return FloatToF16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
  }
  static float Query(float x) { return x; }
  static float Probability(float e) { return FlushTiny(e); }
};

struct F32 {
  using Type = float;
  static constexpr bool kPaired = false;
  static float Decode(float x) { return x; }
  static float Encode(float x) { return x; }
  static float Query(float x) { return x; }
  static float Probability(float e) { return e; }
};

template <class E>
class FloatRow {
 public:
  static constexpr int64_t kBytes = sizeof(typename E::Type);

  FloatRow(const Tile& tile, int64_t i)
      : run_(tile.run), dim_(tile.args.head_dim), offset_(tile.kv_head * dim_ * kKvBlock * kBytes) {
    for (int64_t d = 0; d < dim_; ++d) q_[d] = E::Query(tile.Query(i)[d]);
  }

  // Elements of a head in a page.
  static int64_t KeyIndex(int64_t slot, int64_t d) {
    return E::kPaired ? d / 2 * 64 + slot % kKvBlock * 2 + d % 2 : d * kKvBlock + slot % kKvBlock;
  }
  static int64_t ValueIndex(int64_t dim, int64_t slot, int64_t d) {
    slot %= kKvBlock;
    return E::kPaired ? (slot / 2 * dim + d) * 2 + slot % 2 : slot * dim + d;
  }

  static void Write(const float* k, const float* v, int64_t dim, int64_t slot, uint8_t* keys,
                    uint8_t* values, uint32_t*) {
    for (int64_t d = 0; d < dim; ++d) {
      const typename E::Type key = E::Encode(k[d]), value = E::Encode(v[d]);
      std::memcpy(keys + KeyIndex(slot, d) * kBytes, &key, kBytes);
      std::memcpy(values + ValueIndex(dim, slot, d) * kBytes, &value, kBytes);
    }
  }

  float Score(int64_t j) const {
    const uint8_t* page = run_.k_pages[j / kKvBlock] + offset_;
    float sum = 0;
    for (int64_t d0 = 0; d0 < dim_; d0 += 32) {
      float even = 0, odd = 0;
      for (int64_t d = d0; d < dim_ && d < d0 + 32; d += 2) {
        even = std::fma(q_[d], Load(page, KeyIndex(j, d)), even);
        odd = std::fma(q_[d + 1], Load(page, KeyIndex(j, d + 1)), odd);
      }
      sum += even + odd;
    }
    return sum;
  }

  static float Probability(float e) { return E::Probability(e); }

  void AddBlock(const float* p, int64_t j0, float* acc) const {
    const uint8_t* page = run_.v_pages[j0 / kKvBlock] + offset_;
    for (int64_t d = 0; d < dim_; ++d) {
      float even = 0, odd = 0;
      for (int64_t j = 0; j < kKvBlock; j += 2) {
        even = std::fma(p[j], Load(page, ValueIndex(dim_, j, d)), even);
        odd = std::fma(p[j + 1], Load(page, ValueIndex(dim_, j + 1, d)), odd);
      }
      acc[d] += even + odd;
    }
  }

 private:
  static float Load(const uint8_t* page, int64_t index) {
    typename E::Type bits;
    std::memcpy(&bits, page + index * kBytes, kBytes);
    return E::Decode(bits);
  }

  const KvRun& run_;
  const int64_t dim_, offset_;
  float q_[kMaxHeadDim];
};

class Q8Row {
 public:
  Q8Row(const Tile& tile, int64_t i)
      : run_(tile.run),
        dim_(tile.args.head_dim),
        offset_(tile.kv_head * KvHeadBytes(KvElement::kQ8_0, dim_)) {
    uint32_t ignored = 0;
    for (int64_t d = 0; d < dim_; d += 32) {
      dq_[d / 32] = QuantizeGroup(tile.Query(i) + d, Channels(dim_, d), q_ + d, &ignored);
    }
  }

  static int64_t Width(int64_t dim) { return (dim + 31) / 32 * 32; }
  static int64_t Channels(int64_t dim, int64_t d) { return dim - d < 32 ? dim - d : 32; }
  static int64_t KeyIndex(int64_t slot, int64_t d) {
    return d / 4 * 128 + slot % kKvBlock * 4 + d % 4;
  }
  static int64_t ValueIndex(int64_t dim, int64_t slot, int64_t d) {
    return (slot % kKvBlock / 4 * Width(dim) + d) * 4 + slot % 4;
  }
  static int64_t ScaleOffset(int64_t dim, int64_t slot, int64_t d) {
    return Width(dim) * kKvBlock + (d / 32 * kKvBlock + slot % kKvBlock) * 4;
  }

  static void Write(const float* k, const float* v, int64_t dim, int64_t slot, uint8_t* keys,
                    uint8_t* values, uint32_t* error) {
    for (int64_t d0 = 0; d0 < dim; d0 += 32) {
      int8_t key[32] = {}, value[32] = {};
      const float dk = QuantizeGroup(k + d0, Channels(dim, d0), key, error);
      const float dv = QuantizeGroup(v + d0, Channels(dim, d0), value, error);
      for (int64_t d = 0; d < 32; ++d) {
        keys[KeyIndex(slot, d0 + d)] = static_cast<uint8_t>(key[d] + 128);
        values[ValueIndex(dim, slot, d0 + d)] = static_cast<uint8_t>(value[d] + 128);
      }
      std::memcpy(keys + ScaleOffset(dim, slot, d0), &dk, 4);
      std::memcpy(values + ScaleOffset(dim, slot, d0), &dv, 4);
    }
  }

  float Score(int64_t j) const {
    const uint8_t* page = run_.k_pages[j / kKvBlock] + offset_;
    float sum = 0;
    for (int64_t d0 = 0; d0 < dim_; d0 += 32) {
      int32_t c = 0;
      for (int64_t d = d0; d < d0 + Channels(dim_, d0); ++d) {
        c += q_[d] * (page[KeyIndex(j, d)] - 128);
      }
      sum = std::fma(static_cast<float>(c) * Scale(page, j, d0), dq_[d0 / 32], sum);
    }
    return sum;
  }

  static float Probability(float e) { return FlushTiny(e); }

  void AddBlock(const float* p, int64_t j0, float* acc) const {
    const uint8_t* page = run_.v_pages[j0 / kKvBlock] + offset_;
    for (int64_t d0 = 0; d0 < dim_; d0 += 32) {
      float scaled[kKvBlock];
      for (int64_t j = 0; j < kKvBlock; ++j) scaled[j] = p[j] * Scale(page, j, d0);
      int8_t w[kKvBlock];
      uint32_t ignored = 0;
      const float dw = QuantizeGroup(scaled, kKvBlock, w, &ignored);
      for (int64_t d = d0; d < d0 + Channels(dim_, d0); ++d) {
        int32_t c = 0;
        for (int64_t j = 0; j < kKvBlock; ++j) c += w[j] * (page[ValueIndex(dim_, j, d)] - 128);
        acc[d] = std::fma(static_cast<float>(c), dw, acc[d]);
      }
    }
  }

 private:
  float Scale(const uint8_t* page, int64_t slot, int64_t d) const {
    float scale;
    std::memcpy(&scale, page + ScaleOffset(dim_, slot, d), 4);
    return scale;
  }

  const KvRun& run_;
  const int64_t dim_, offset_;
  int8_t q_[kMaxHeadDim];
  float dq_[kMaxHeadDim / 32];
};

}  // namespace bakestone::reference
