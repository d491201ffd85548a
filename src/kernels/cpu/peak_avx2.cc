#include "kernels/cpu/peak.inl.h"
#include "kernels/cpu/vec_avx2.h"

namespace bakestone {

constexpr PeakKernels kPeakAvx2 = {PeakInt8<V256>, PeakFloat<V256>};

}  // namespace bakestone
