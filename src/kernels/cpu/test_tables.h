// Tables that only kernels_test has: what a machine with AVX-512 and no more would never choose.
// Plain data, as the units that make them are compiled with flags of their own and without
// exceptions.
#pragma once

#include "kernels/serve_tables.h"

namespace bakestone::testing {

#if defined(__x86_64__)
extern const ServeKernels kServeAvxVnniInAvx512;
extern const TileKernels kTilesEmulated;
#endif

}  // namespace bakestone::testing
