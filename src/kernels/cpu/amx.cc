#include "kernels/cpu/tile_table.inl.h"
#include "kernels/cpu/tiles_amx.h"

namespace bakestone {

constexpr TileKernels kTilesAmx = MakeTileKernels<AmxTiles>();

}  // namespace bakestone
