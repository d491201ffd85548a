// The eight tile registers of AMX as an object: configured when made, released when destroyed.
// Tiles 0 to 3 hold sums, [rows][16] of 32 bits; 4 and 5 activations, [rows][row_bytes]; 6 and
// 7 weights, [row_bytes / 4][64] (four consecutive k of 16 lanes, or two of bf16: L of
// kernels/panel.h). Written as assembly, because intrinsics take register numbers as literals only,
// and g++ 12's _tile_loadconfig does not tell that it reads all 64 bytes. What each instruction
// computes: tiles_emulated.h.
#pragma once

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {
namespace {

class AmxTiles {
 public:
  explicit AmxTiles(int row_bytes, int rows = 16) {
    struct alignas(64) Config {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof(Config) == 64);
    for (int tile = 0; tile < 8; ++tile) {
      const bool activations = tile == 4 || tile == 5;
      config.row_bytes[tile] = static_cast<uint16_t>(activations ? row_bytes : 64);
      config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : row_bytes / 4);
    }
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int kTile>
  BAKESTONE_INLINE void Load(const void* rows, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
  }
  // The same of what is not read again soon: it does not drive from L1 what is.
  template <int kTile>
  BAKESTONE_INLINE void LoadOnce(const void* rows, int64_t stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(rows), "r"(stride), "i"(kTile)
                 : "memory");
  }
  template <int kTile>
  BAKESTONE_INLINE void Store(void* rows, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(rows), "r"(stride), "i"(kTile)
                 : "memory");
  }
  template <int kTile>
  BAKESTONE_INLINE void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile) : "memory");
  }
  template <int kSums, int kRows, int kWeights>
  BAKESTONE_INLINE void DotInt8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                 :
                 : "i"(kSums), "i"(kRows), "i"(kWeights)
                 : "memory");
  }
  template <int kSums, int kRows, int kWeights>
  BAKESTONE_INLINE void DotBF16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
                 :
                 : "i"(kSums), "i"(kRows), "i"(kWeights)
                 : "memory");
  }
};

}  // namespace
}  // namespace bakestone
