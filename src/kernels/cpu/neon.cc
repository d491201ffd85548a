#include "kernels/cpu/table.inl.h"
#include "kernels/cpu/vec_neon.h"

namespace bakestone {

constexpr ServeKernels kServeNeon = MakeTable<V128>();

}  // namespace bakestone
