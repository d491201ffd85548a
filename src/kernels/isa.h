// Which tables this machine can run, as a container (kernel_table.h itself holds plain data only).
#pragma once

#include <vector>

#include "kernels/kernel_table.h"

namespace bakestone {

// Every table that this machine can run, slowest first; the reference is always there.
std::vector<const KernelTable*> AvailableKernels();

}  // namespace bakestone
