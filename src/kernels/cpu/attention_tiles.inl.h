// Attention's products over pages of bf16 on tile registers (AMX), 16 rows at a time: a page of
// keys and one of values are tiles of weights as they lie. A dot product of tiles over 32 channels,
// or the 32 slots of a block, is even + odd of docs/numerics.md; what follows it there is done in
// vectors, on sums that the tiles stored. For head sizes of whole 32 channels. Tiles is AmxTiles
// (tiles_amx.h), or its emulation in tests.
#pragma once

#include "kernels/cpu/attention_float.inl.h"
#include "kernels/cpu/vec_avx512.h"

namespace bakestone {
namespace {

template <class Tiles>
struct TileAttention {
  template <class V>
  class Pages {
   public:
    using Tile = TileRows<V>;

    BAKESTONE_INLINE static __m512 Probability(__m512 x) { return ElementBF16<V>::Probability(x); }

    BAKESTONE_INLINE void Prepare(const Tile& t, ScratchFloats& floats) {
      const int64_t rows =
          t.count + kRows - 1;  // a tile that begins at the last row reads beyond it
      q_ = reinterpret_cast<uint16_t*>(floats.Take(rows * t.dim / 2));
      head_offset_ = t.kv_head * t.dim * kKvBlock * 2;
      for (int64_t row = 0; row < t.count; ++row) {
        const float* q = t.Query(row);
        for (int64_t d = 0; d < t.dim; d += 16) {
          Halves(RoundBF16<V>(V::Load(q + d)), q_ + row * t.dim + d);
        }
      }
      const auto unused = static_cast<size_t>((rows - t.count) * t.dim) * 2;
      __builtin_memset(q_ + t.count * t.dim, 0, unused);
    }

    BAKESTONE_INLINE int64_t Scores(const Tile& t, int64_t row, int64_t left, int64_t j0) {
      const int64_t rows = left < kRows ? left : kRows;
      t.end[row + rows - 1] > kKvBlock ? ScoreRows<2>(t, row, rows, j0)
                                       : ScoreRows<1>(t, row, rows, j0);
      return rows;
    }

    BAKESTONE_INLINE int64_t AddValues(const Tile& t, int64_t row, int64_t left, int64_t j0) {
      const int64_t rows = left < kRows ? left : kRows;
      t.end[row + rows - 1] > kKvBlock ? ValueRows<2>(t, row, rows, j0)
                                       : ValueRows<1>(t, row, rows, j0);
      return rows;
    }

   private:
    static constexpr int64_t kRows = 16;

    // The upper halves of 16 words.
    BAKESTONE_INLINE static void Halves(__m512 x, uint16_t* out) {
      const __m512i upper = _mm512_srli_epi32(_mm512_castps_si512(x), 16);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(upper));
    }

    // The first kBlocks blocks of the step.
    template <int kBlocks>
    [[gnu::noinline]] void ScoreRows(const Tile& t, int64_t row, int64_t rows, int64_t j0) {
      constexpr int64_t kStride = kKvBlock * 4;  // from a pair of channels to the next
      alignas(64) float sums[kRows][kKvStep];
      const uint8_t* first = t.run.k_pages[j0 / kKvBlock] + head_offset_;
      const uint8_t* second =
          kBlocks == 2 ? t.run.k_pages[j0 / kKvBlock + 1] + head_offset_ : first;
      const uint16_t* q = q_ + row * t.dim;
      tiles_.template Zero<0>();
      tiles_.template Zero<1>();
      if constexpr (kBlocks == 2) {
        tiles_.template Zero<2>();
        tiles_.template Zero<3>();
      }
      for (int64_t d = 0; d < t.dim; d += 32, first += 16 * kStride, second += 16 * kStride) {
        tiles_.template Load<4>(q + d, t.dim * 2);
        tiles_.template Load<6>(first, kStride);
        tiles_.template DotBF16<0, 4, 6>();
        tiles_.template Load<7>(first + 64, kStride);
        tiles_.template DotBF16<1, 4, 7>();
        if constexpr (kBlocks == 2) {
          tiles_.template Load<6>(second, kStride);
          tiles_.template DotBF16<2, 4, 6>();
          tiles_.template Load<7>(second + 64, kStride);
          tiles_.template DotBF16<3, 4, 7>();
        }
      }
      tiles_.template Store<0>(sums[0], kKvStep * 4);
      tiles_.template Store<1>(sums[0] + 16, kKvStep * 4);
      if constexpr (kBlocks == 2) {
        tiles_.template Store<2>(sums[0] + 32, kKvStep * 4);
        tiles_.template Store<3>(sums[0] + 48, kKvStep * 4);
      }
      const auto scale = V::Set(t.args.scale);
      for (int64_t i = 0; i < rows; ++i) {
        float* out = t.scores + (row + i) * kKvStep;
#pragma GCC unroll 4
        for (int64_t j = 0; j < kBlocks * kKvBlock; j += 16) {
          V::Store(out + j, V::Mul(V::Load(sums[i] + j), scale));
        }
      }
    }

    // acc = acc * rescale, then + even + odd for each block that the row sees.
    template <int kBlocks>
    [[gnu::noinline]] void ValueRows(const Tile& t, int64_t row, int64_t rows, int64_t j0) {
      alignas(64) uint16_t p[kBlocks][kRows][kKvBlock] = {};
      alignas(64) float sums[kBlocks][kRows][32];
      for (int64_t i = 0; i < rows; ++i) {
        const float* from = t.scores + (row + i) * kKvStep;
        for (int block = 0; block < kBlocks; ++block, from += kKvBlock) {
          Halves(V::Load(from), p[block][i]);
          Halves(V::Load(from + 16), p[block][i] + 16);
        }
      }
      const int64_t stride = t.dim * 4;  // from a pair of slots to the next
      const uint8_t* first = t.run.v_pages[j0 / kKvBlock] + head_offset_;
      const uint8_t* second =
          kBlocks == 2 ? t.run.v_pages[j0 / kKvBlock + 1] + head_offset_ : first;
      tiles_.template Load<4>(p[0], 64);
      if constexpr (kBlocks == 2) tiles_.template Load<5>(p[1], 64);
      for (int64_t d = 0; d < t.dim; d += 32, first += 128, second += 128) {
        tiles_.template Zero<0>();
        tiles_.template Load<6>(first, stride);
        tiles_.template DotBF16<0, 4, 6>();
        tiles_.template Store<0>(sums[0][0], 128);
        tiles_.template Zero<1>();
        tiles_.template Load<7>(first + 64, stride);
        tiles_.template DotBF16<1, 4, 7>();
        tiles_.template Store<1>(sums[0][0] + 16, 128);
        if constexpr (kBlocks == 2) {
          tiles_.template Zero<2>();
          tiles_.template Load<6>(second, stride);
          tiles_.template DotBF16<2, 5, 6>();
          tiles_.template Store<2>(sums[1][0], 128);
          tiles_.template Zero<3>();
          tiles_.template Load<7>(second + 64, stride);
          tiles_.template DotBF16<3, 5, 7>();
          tiles_.template Store<3>(sums[1][0] + 16, 128);
        }
        for (int64_t i = 0; i < rows; ++i) {
          float* acc = t.acc + (row + i) * t.width + d;
          auto left = V::Mul(V::Load(acc), V::Set(t.rescale[row + i]));
          auto right = V::Mul(V::Load(acc + 16), V::Set(t.rescale[row + i]));
#pragma GCC unroll 2
          for (int block = 0; block < kBlocks; ++block) {
            if (!t.Sees(row + i, block * kKvBlock)) continue;
            left = V::Add(left, V::Load(sums[block][i]));
            right = V::Add(right, V::Load(sums[block][i] + 16));
          }
          V::Store(acc, left);
          V::Store(acc + 16, right);
        }
      }
    }

    Tiles tiles_{64};
    uint16_t* q_ = nullptr;  // [count + 15][D], bf16
    int64_t head_offset_ = 0;
  };
};

}  // namespace
}  // namespace bakestone
