#include "kernels/cpu/encode_table.inl.h"
#include "kernels/cpu/vec_neon.h"
#include "kernels/serve_tables.h"

namespace bakestone {

constexpr EncodeKernels kEncodeNeon = MakeEncodeTable<V128>();

}  // namespace bakestone
