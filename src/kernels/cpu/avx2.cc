#include "kernels/cpu/table.inl.h"
#include "kernels/cpu/vec_avx2.h"

namespace bakestone {

constexpr ServeKernels kServeAvx2 = MakeTable<V256>();

}  // namespace bakestone
