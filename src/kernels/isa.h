// Which tables this machine can run, as a container (kernel_table.h itself holds plain data only).
#pragma once

#include <vector>

#include "kernels/kernel_table.h"

namespace bakestone {

// Every table that this machine can run, slowest first; the reference is always there.
std::vector<const KernelTable*> AvailableKernels();

// What this CPU lacks for the first table above the reference ("AVX2"); null where it has that, or
// where there is none for its family.
const char* MissingForVectors();

}  // namespace bakestone
