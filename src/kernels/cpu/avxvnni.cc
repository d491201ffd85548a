#include "kernels/cpu/table.inl.h"
#include "kernels/cpu/vec_avxvnni.h"

namespace bakestone {

constexpr ServeKernels kServeAvxVnni = MakeTable<V256Vnni>();

}  // namespace bakestone
