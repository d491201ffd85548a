#include "kernels/cpu/peak.inl.h"
#include "kernels/cpu/tile_table.inl.h"
#include "kernels/cpu/tiles_amx.h"

namespace bakestone {
namespace {

// Four tiles of sums, each fed by two of four tiles of operands: what the registers alone allow.
template <bool kInt8>
int64_t PeakTiles(int64_t rounds, const uint8_t* operands, float* result) noexcept {
  alignas(64) int32_t sums[256];
  AmxTiles tiles(64);
  tiles.Load<4>(operands, 64);
  tiles.Load<5>(operands + 1024, 64);
  tiles.Load<6>(operands + 2048, 64);
  tiles.Load<7>(operands + 3072, 64);
  tiles.Zero<0>();
  tiles.Zero<1>();
  tiles.Zero<2>();
  tiles.Zero<3>();
  for (int64_t round = 0; round < rounds; ++round) {
    if constexpr (kInt8) {
      tiles.DotInt8<0, 4, 6>();
      tiles.DotInt8<1, 4, 7>();
      tiles.DotInt8<2, 5, 6>();
      tiles.DotInt8<3, 5, 7>();
    } else {
      tiles.DotBF16<0, 4, 6>();
      tiles.DotBF16<1, 4, 7>();
      tiles.DotBF16<2, 5, 6>();
      tiles.DotBF16<3, 5, 7>();
    }
  }
  tiles.Store<0>(sums, 64);
  for (int lane = 0; lane < 16; ++lane) result[lane] = static_cast<float>(sums[lane]);
  return rounds * 4 * 16 * 16 * (kInt8 ? 64 : 32);
}

}  // namespace

constexpr TileKernels kTilesAmx = MakeTileKernels<AmxTiles>();
constexpr PeakKernels kPeakAmx = {PeakTiles<true>, PeakFloat<V512>, PeakTiles<false>};

}  // namespace bakestone
