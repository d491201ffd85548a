// The serving and the encoding part of each table, constant-initialized in units of their own;
// dispatch.cc puts tables together and knows which CPU runs which.
#pragma once

#include "kernels/kernel_table.h"

namespace bakestone {

extern const ServeKernels kServeReference;
extern const EncodeKernels kEncodeReference;
#if defined(__x86_64__)
extern const ServeKernels kServeAvx2;     // AVX2, FMA, F16C
extern const ServeKernels kServeAvxVnni;  // and AVX-VNNI
extern const ServeKernels kServeAvx512;   // F, BW, DQ, VL, VNNI

// The entries that differ where there are tile registers; null: the AVX-512 table's.
struct TileKernels {
  decltype(MatMulKernels::run) matmul[kNumPanelTypes];
  decltype(AttentionKernels::tile) attention_tile;  // over pages of bf16
  decltype(AttentionKernels::segment) attention_segment;
  decltype(TrainKernels::gemm) train_gemm;
  decltype(TrainKernels::outer) train_outer;
};
extern const TileKernels kTilesAmx;         // AMX-TILE, AMX-INT8, AMX-BF16
KernelTable WithTiles(const TileKernels&);  // in dispatch.cc

// The entries that differ where bf16 dot products pay.
struct DotKernels {
  bool (*in_pair_order)() noexcept;     // whether this CPU's have the bits that the others rely on
  decltype(MatMulKernels::run) matmul;  // with panels of bf16
  decltype(AttentionKernels::tile) attention_tile;  // over pages of bf16
  decltype(AttentionKernels::segment) attention_segment;
};
extern const DotKernels kDotsAvx512;      // AVX512_BF16
KernelTable Avx512Table(bool with_dots);  // in dispatch.cc
bool DotsPay();                           // there

extern const EncodeKernels kEncodeAvx2;
extern const EncodeKernels kEncodeAvx512;
#elif defined(__aarch64__)
extern const ServeKernels kServeNeon;      // the dot product instructions
extern const ServeKernels kServeNeonI8mm;  // and the int8 matrix extension
extern const EncodeKernels kEncodeNeon;
#endif

}  // namespace bakestone
