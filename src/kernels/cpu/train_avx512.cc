// Training kernels for AVX-512 (F, BW, DQ, VL).
#include "kernels/cpu/train_avx512.h"

#include <immintrin.h>

#include <cstdint>

#include "kernels/train_kernels.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr int kOuterRows = 8;
#include "kernels/cpu/train_gemm.inl.h"
#include "kernels/cpu/train_pack.inl.h"
#include "kernels/cpu/train_rows.inl.h"
#include "kernels/cpu/train_vector_avx512.inl.h"

// On AMD, vdpbf16ps does twice the work of an f32 multiply-add at the same rate; on Intel's server
// cores it is slower than the multiply-adds it replaces (112 against 222 GFLOP/s measured).
bool HasFastBf16Dot() noexcept {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
}

void GemmFma(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
             int64_t panel_end) noexcept {
  Gemm<V, FmaProduct<V, 12>>(args, row_begin, row_end, panel_begin, panel_end);
}

void ChosenGemm(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                int64_t panel_end) noexcept {
  (HasFastBf16Dot() ? TrainGemmBf16Dot : GemmFma)(args, row_begin, row_end, panel_begin, panel_end);
}

void ChosenOuter(const TrainOuterArgs& args, int64_t col_begin, int64_t col_end) noexcept {
  (HasFastBf16Dot() ? TrainOuterBf16Dot : Outer<V, FmaProduct<V, 12>>)(args, col_begin, col_end);
}

constexpr TrainKernels Make() {
  TrainKernels kernels = MakeTrainKernels<V>();
  kernels.product = "vdpbf16ps on AMD, f32 fma elsewhere";
  kernels.gemm = ChosenGemm;
  kernels.outer = ChosenOuter;
  return kernels;
}

}  // namespace

constinit const TrainKernels kTrainAvx512 = Make();

}  // namespace bakestone
