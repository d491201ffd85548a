#include "kernels/cpu/peak.inl.h"
#include "kernels/cpu/vec_neon.h"

namespace bakestone {

constexpr PeakKernels kPeakNeon = {PeakInt8<V128>, PeakFloat<V128>};

}  // namespace bakestone
