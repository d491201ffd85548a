// The avxvnni table once more, with the same instructions in AVX-512's encoding: servers with
// AVX-512 VNNI test the class that they would never choose.
#if defined(__x86_64__)
#include "kernels/cpu/table.inl.h"
#include "kernels/cpu/test_tables.h"
#include "kernels/cpu/vec_avxvnni.h"

namespace bakestone::testing {

constexpr ServeKernels kServeAvxVnniInAvx512 = MakeTable<V256Vnni>();

}  // namespace bakestone::testing
#endif
