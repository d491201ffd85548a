// Training kernels for AVX-512 (F, BW, DQ, VL).
#include <immintrin.h>

#include <cstdint>

#include "kernels/math.h"
#include "kernels/train_kernels.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr int kOuterRows = 8;
#include "kernels/cpu/train_gemm.inl.h"
#include "kernels/cpu/train_pack.inl.h"
constexpr int kStateVectors = 8;
#include "kernels/cpu/train_rows.inl.h"
#include "kernels/cpu/train_vector_avx512.inl.h"

void GemmFma(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
             int64_t panel_end) noexcept {
  Gemm<V, FmaProduct<V, 12>>(args, row_begin, row_end, panel_begin, panel_end);
}

constexpr TrainKernels Make() {
  TrainKernels kernels = MakeTrainKernels<V>();
  kernels.gemm = GemmFma;
  kernels.outer = Outer<V, FmaProduct<V, 12>>;
  return kernels;
}

}  // namespace

constinit const TrainKernels kTrainAvx512 = Make();

}  // namespace bakestone
