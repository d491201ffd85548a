#include "kernels/cpu/encode_table.inl.h"
#include "kernels/cpu/vec_avx512.h"
#include "kernels/serve_tables.h"

namespace bakestone {

constexpr EncodeKernels kEncodeAvx512 = MakeEncodeTable<V512>();

}  // namespace bakestone
