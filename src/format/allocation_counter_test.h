// Counts what this thread asks operator new for. With a sanitizer, which has its own, all stay 0.
#pragma once

#include <cstddef>

namespace bakestone {

void ResetAllocations();
size_t TotalAllocated();     // bytes since the last reset, freed ones too
size_t LargestAllocation();  // bytes of the largest single request since then

}  // namespace bakestone
