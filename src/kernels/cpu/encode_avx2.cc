#include "kernels/cpu/encode_table.inl.h"
#include "kernels/cpu/vec_avx2.h"
#include "kernels/serve_tables.h"

namespace bakestone {

constexpr EncodeKernels kEncodeAvx2 = MakeEncodeTable<V256>();

}  // namespace bakestone
