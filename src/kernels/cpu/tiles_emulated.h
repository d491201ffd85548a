// tiles_amx.h in plain code, so that a machine without tile registers can test what is written over
// them. Test code only.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tensor/inline.h"

namespace bakestone {
namespace {

class EmulatedTiles {
 public:
  explicit EmulatedTiles(int row_bytes, int rows = 16) : row_bytes_(row_bytes), rows_(rows) {}

  template <int kTile>
  void Load(const void* rows, int64_t stride) {
    for (int row = 0; row < Rows(kTile); ++row) {
      std::memcpy(tiles_[kTile][row], static_cast<const uint8_t*>(rows) + row * stride,
                  static_cast<size_t>(RowBytes(kTile)));
    }
  }
  template <int kTile>
  void LoadOnce(const void* rows, int64_t stride) {
    Load<kTile>(rows, stride);
  }
  template <int kTile>
  void Store(void* rows, int64_t stride) {
    for (int row = 0; row < Rows(kTile); ++row) {
      std::memcpy(static_cast<uint8_t*>(rows) + row * stride, tiles_[kTile][row],
                  static_cast<size_t>(RowBytes(kTile)));
    }
  }
  template <int kTile>
  void Zero() {
    std::memset(tiles_[kTile], 0, sizeof tiles_[kTile]);
  }

  // sums[row][lane] += sum over k of a[row][k] * w[k / 4][lane][k % 4], all int8.
  template <int kSums, int kRows, int kWeights>
  void DotInt8() {
    for (int row = 0; row < rows_; ++row) {
      for (int lane = 0; lane < 16; ++lane) {
        int32_t sum;
        std::memcpy(&sum, tiles_[kSums][row] + 4 * lane, 4);
        for (int k = 0; k < row_bytes_; ++k) {
          sum += static_cast<int8_t>(tiles_[kRows][row][k]) *
                 static_cast<int8_t>(tiles_[kWeights][k / 4][4 * lane + k % 4]);
        }
        std::memcpy(tiles_[kSums][row] + 4 * lane, &sum, 4);
      }
    }
  }
  // sums[row][lane] += even + odd, each a chain of multiply-adds over the even or odd k that begins
  // at 0.
  template <int kSums, int kRows, int kWeights>
  void DotBF16() {
    for (int row = 0; row < rows_; ++row) {
      for (int lane = 0; lane < 16; ++lane) {
        float chain[2] = {0, 0}, sum;
        for (int k = 0; k < row_bytes_ / 2; ++k) {
          chain[k % 2] =
              std::fma(BF16(tiles_[kRows][row] + 2 * k),
                       BF16(tiles_[kWeights][k / 2] + 4 * lane + 2 * (k % 2)), chain[k % 2]);
        }
        std::memcpy(&sum, tiles_[kSums][row] + 4 * lane, 4);
        sum += chain[0] + chain[1];
        std::memcpy(tiles_[kSums][row] + 4 * lane, &sum, 4);
      }
    }
  }

 private:
  int Rows(int tile) const { return tile < 6 ? rows_ : row_bytes_ / 4; }
  int RowBytes(int tile) const { return tile == 4 || tile == 5 ? row_bytes_ : 64; }
  static float BF16(const uint8_t* p) {
    const uint32_t bits = static_cast<uint32_t>(p[0] | p[1] << 8) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }

  int row_bytes_, rows_;
  uint8_t tiles_[8][16][64] = {};
};

}  // namespace
}  // namespace bakestone
