// The kernels of the amx table over emulated tile registers: machines with AVX-512 test what they
// would never choose.
#if defined(__x86_64__)
#include "kernels/cpu/test_tables.h"
#include "kernels/cpu/tile_table.inl.h"
#include "kernels/cpu/tiles_emulated.h"

namespace bakestone::testing {

constexpr TileKernels kTilesEmulated = MakeTileKernels<EmulatedTiles>();

}  // namespace bakestone::testing
#endif
