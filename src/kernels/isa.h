// The tables by name, and which of them this machine can run.
#pragma once

#include <vector>

#include "kernels/kernel_table.h"

namespace bakestone {

const char* IsaName(Isa isa);  // "reference", "avx2", "avx512"

// Every table that this machine can run, slowest first; the reference is always there.
std::vector<const KernelTable*> AvailableKernels();

}  // namespace bakestone
