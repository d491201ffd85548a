#include "kernels/cpu/table.inl.h"
#include "kernels/cpu/vec_avx512.h"

namespace bakestone {

constexpr ServeKernels kServeAvx512 = MakeTable<V512>();

}  // namespace bakestone
