#include "kernels/cpu/peak.inl.h"
#include "kernels/cpu/vec_avx512.h"

namespace bakestone {

constexpr PeakKernels kPeakAvx512 = {PeakInt8<V512>, PeakFloat<V512>};

}  // namespace bakestone
