// Attention's products over Q8_0 pages: integer dot products of 32 channels (scores) or 32 slots
// (values), one lane a key or a channel. The query is quantized per 32 channels; p takes in the
// scales of the values and is quantized per 32 slots, for each 32 channels anew.
#pragma once

#include "kernels/cpu/attention.inl.h"
#include "kernels/cpu/rows.inl.h"

namespace bakestone {
namespace {

template <class V>
class PagesQ8 {
 public:
  using F = typename V::F;
  using Tile = TileRows<V>;

  BAKESTONE_INLINE static F Probability(F x) { return ExpOrZero<V>(x); }

  BAKESTONE_INLINE void Prepare(const Tile& t, ScratchFloats& floats) {
    groups_ = (t.dim + 31) / 32;
    head_offset_ = t.kv_head * KvHeadBytes(KvElement::kQ8_0, t.dim);
    q_ = reinterpret_cast<int8_t*>(floats.Take(t.count * groups_ * 8));
    q_scale_ = floats.Take(t.count * groups_);
    q_bias_ = reinterpret_cast<int32_t*>(floats.Take(t.count * groups_));
    uint32_t ignored = 0;
    for (int64_t i = 0; i < t.count * groups_; ++i) {
      const int64_t d = i % groups_ * 32;
      alignas(64) float x[32];
      LoadGroup<V>(t.Query(i / groups_) + d, t.dim - d, x);
      int16_t sum;
      q_scale_[i] = QuantizeGroup<V>(x, q_ + 32 * i, &sum, &ignored);
      q_bias_[i] = -V::kByteBias * sum;
    }
  }

  // Up to kRows rows at a time share the registers that hold a block of the page.
  BAKESTONE_INLINE int64_t Scores(const Tile& t, int64_t row, int64_t left, int64_t j0) const {
    const int64_t n = left < kRows ? left : kRows;
    ScoreRows(t, row, n, j0);
    return n;
  }
  BAKESTONE_INLINE int64_t AddValues(const Tile& t, int64_t row, int64_t left, int64_t j0) const {
    const int64_t n = left < kRows ? left : kRows;
    ValueRows(t, row, n, j0);
    return n;
  }

 private:
  static constexpr int64_t kRows = 16;

  BAKESTONE_INLINE static F LoadFloats(const uint8_t* p) {
    return V::Load(reinterpret_cast<const float*>(p));
  }

  [[gnu::noinline]] void ScoreRows(const Tile& t, int64_t row, int64_t n, int64_t j0) const {
    const int64_t slots = t.end[row + n - 1] > kKvBlock ? kKvStep : kKvBlock;
    const auto scale = V::Set(t.args.scale);
    for (int64_t j = 0; j < slots; j += 16) {
      const int64_t at = (j0 + j) / kKvBlock;
      const uint8_t* page = t.run.k_pages[at] + head_offset_;
      const uint8_t* keys = page + j % kKvBlock * 4;
      const uint8_t* next = t.Next(t.run.k_pages, at) + head_offset_ + j % kKvBlock * 4;
      const uint8_t* scales = page + groups_ * 32 * kKvBlock + j % kKvBlock * 4;
      for (int64_t g = 0; g < groups_; ++g, keys += 8 * 128, next += 8 * 128, scales += 128) {
        typename V::B w[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          w[i] = V::LoadB(keys + 128 * i);
          if (row == 0) FetchLine(next + 128 * i, false);
        }
        const auto dk = LoadFloats(scales);
        for (int64_t i = row; i < row + n; ++i) {
          const int64_t at = i * groups_ + g;
          const auto c = V::template Dot<8, 8>(V::SetI(q_bias_[at]), w, q_ + 32 * at);
          float* s = t.scores + i * kKvStep + j;
          const auto sofar = g == 0 ? V::Zero() : V::Load(s);
          const auto total = V::Fma(V::Mul(V::ToFloat(c), dk), V::Set(q_scale_[at]), sofar);
          V::Store(s, g + 1 == groups_ ? V::Mul(total, scale) : total);
        }
      }
    }
  }

  [[gnu::noinline]] void ValueRows(const Tile& t, int64_t row, int64_t n, int64_t j0) const {
    for (int64_t i = row; i < row + n; ++i) {
      float* acc = t.acc + i * t.width;
      const auto rescale = V::Set(t.rescale[i]);
      for (int64_t d = 0; d < t.width; d += 16) {
        V::Store(acc + d, V::Mul(V::Load(acc + d), rescale));
      }
    }
    for (int64_t block = 0; block < kKvStep; block += kKvBlock) {
      bool any = false;
      for (int64_t i = row; i < row + n; ++i) any |= t.Sees(i, block);
      if (!any) continue;
      const int64_t at = (j0 + block) / kKvBlock;
      const uint8_t* page = t.run.v_pages[at] + head_offset_;
      const uint8_t* next = t.Next(t.run.v_pages, at) + head_offset_;
      for (int64_t g = 0; g < groups_; ++g) AddGroup(t, row, n, block, page, next, g);
    }
  }

  // The 32 channels of group g of one block; the same of the page `next` are fetched.
  BAKESTONE_INLINE void AddGroup(const Tile& t, int64_t row, int64_t n, int64_t block,
                                 const uint8_t* page, const uint8_t* next, int64_t g) const {
    const uint8_t* scales = page + groups_ * 32 * kKvBlock + g * 128;
    const auto low = LoadFloats(scales), high = LoadFloats(scales + 64);
    int8_t p[kRows][32];
    float dp[kRows];
    int32_t bias[kRows];
    uint32_t ignored = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float* from = t.scores + (row + i) * kKvStep + block;
      alignas(64) float x[32];
      V::Store(x, V::Mul(V::Load(from), low));
      V::Store(x + 16, V::Mul(V::Load(from + 16), high));
      int16_t sum;
      dp[i] = QuantizeGroup<V>(x, p[i], &sum, &ignored);
      bias[i] = -V::kByteBias * sum;
    }
    const int64_t row_bytes = groups_ * 32 * 4;
    for (int64_t d = g * 32; d < g * 32 + 32 && d < t.width; d += 16) {
      typename V::B w[8];
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        w[j] = V::LoadB(page + j * row_bytes + d * 4);
        if (row == 0) FetchLine(next + j * row_bytes + d * 4, false);
      }
      for (int64_t i = 0; i < n; ++i) {
        if (!t.Sees(row + i, block)) continue;
        const auto c = V::template Dot<8, 8>(V::SetI(bias[i]), w, p[i]);
        float* acc = t.acc + (row + i) * t.width + d;
        V::Store(acc, V::Fma(V::ToFloat(c), V::Set(dp[i]), V::Load(acc)));
      }
    }
  }

  int64_t groups_ = 0, head_offset_ = 0;  // groups of 32 channels
  int8_t* q_ = nullptr;                   // [count][groups][32]
  float* q_scale_ = nullptr;              // [count][groups]
  int32_t* q_bias_ = nullptr;             // [count][groups]: -bias of the weights * sum of q
};

}  // namespace
}  // namespace bakestone
