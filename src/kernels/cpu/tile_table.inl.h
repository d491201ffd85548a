// The entries that tile registers replace in the AVX-512 table.
#pragma once

#include "kernels/cpu/matmul_tiles.inl.h"
#include "kernels/serve_tables.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr int kOuterRows = 8;
#include "kernels/cpu/train_gemm.inl.h"
#include "kernels/cpu/train_vector_avx512.inl.h"
#include "kernels/cpu/train_tiles.inl.h"

// Fewer rows leave too much of a tile empty.
constexpr int64_t kTilesFrom = 12;

template <class Tiles, PanelType kType>
void MatMulFromRows(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  if (args.x.rows < kTilesFrom) {
    kServeAvx512.matmul[static_cast<int>(kType)].run(args, strips, scratch);
  } else {
    MatMulTiles<Tiles, kType>(args, strips, scratch);
  }
}

template <class Tiles, PanelType kType>
constexpr void FillTiles(TileKernels& t) {
  t.matmul[static_cast<int>(kType)] = MatMulFromRows<Tiles, kType>;
}

template <class Tiles>
constexpr TileKernels MakeTileKernels() {
  TileKernels t{};
  FillTiles<Tiles, PanelType::kBF16>(t);
  FillTiles<Tiles, PanelType::kQ4_0>(t);
  FillTiles<Tiles, PanelType::kQ4_1>(t);
  FillTiles<Tiles, PanelType::kQ5_0>(t);
  FillTiles<Tiles, PanelType::kQ5_1>(t);
  FillTiles<Tiles, PanelType::kQ8_0>(t);
  FillTiles<Tiles, PanelType::kQ2_K>(t);
  FillTiles<Tiles, PanelType::kQ3_K>(t);
  FillTiles<Tiles, PanelType::kQ4_K>(t);
  FillTiles<Tiles, PanelType::kQ5_K>(t);
  FillTiles<Tiles, PanelType::kQ6_K>(t);
  FillTiles<Tiles, PanelType::kIQ4_NL>(t);
  FillTiles<Tiles, PanelType::kIQ4_XS>(t);
  FillTiles<Tiles, PanelType::kMXFP4>(t);
  t.train_gemm = TileProduct<Tiles>::Gemm;
  t.train_outer = TileProduct<Tiles>::Outer;
  return t;
}

}  // namespace
}  // namespace bakestone
