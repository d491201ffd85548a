#include "kernels/cpu/peak.inl.h"
#include "kernels/cpu/vec_avxvnni.h"

namespace bakestone {

constexpr PeakKernels kPeakAvxVnni = {PeakInt8<V256Vnni>, PeakFloat<V256Vnni>};

}  // namespace bakestone
