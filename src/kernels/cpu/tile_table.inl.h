// The entries that tile registers replace in the AVX-512 table.
#pragma once

#include "kernels/cpu/attention_tiles.inl.h"
#include "kernels/cpu/matmul_tiles.inl.h"
#include "kernels/serve_tables.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr int kOuterRows = 8;
#include "kernels/cpu/train_gemm.inl.h"
#include "kernels/cpu/train_vector_avx512.inl.h"
#include "kernels/cpu/train_tiles.inl.h"

// Fewer rows leave too much of a tile empty, and integer panels are expanded for too few. Flushed
// panels are not copied: adapters of rank 16 on 64 rows of SmolLM2-135M's shapes, by vectors and by
// tiles, ms: 16 of 4 rows 12.2 and 7.1, 8 of 8 rows 7.9 and 3.5, but 32 of 2 rows 14.3 and 15.7.
constexpr int64_t kTilesFrom = 12, kFlushedTilesFrom = 4, kIntegerTilesFrom = 48;

template <class Tiles, PanelType kType>
void MatMulFromRows(const MatMulArgs& args, Range strips, void* scratch) noexcept {
  const int64_t from = kType != PanelType::kBF16 ? kIntegerTilesFrom
                       : args.panel.flushed      ? kFlushedTilesFrom
                                                 : kTilesFrom;
  if (args.x.rows < from) {
    kServeAvx512.matmul[static_cast<int>(kType)].run(args, strips, scratch);
  } else {
    MatMulTiles<Tiles, kType>(args, strips, scratch);
  }
}

// Rows are those of a tile of attention: tokens by the query heads of one key/value head.
BAKESTONE_INLINE bool EnoughForTiles(const AttentionArgs& args, Range rows) {
  return args.head_dim % 32 == 0 &&
         (rows.end - rows.begin) * (args.heads / args.kv_heads) >= kTilesFrom;
}

template <class Tiles>
void AttentionFromRows(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                       void* scratch) noexcept {
  if (EnoughForTiles(args, rows)) {
    RunAttention<V512, TileAttention<Tiles>::template Pages>(args, run, rows, kv_head, scratch);
  } else {
    kServeAvx512.attention[static_cast<int>(KvElement::kBF16)].tile(args, run, rows, kv_head,
                                                                    scratch);
  }
}

template <class Tiles>
void SegmentFromRows(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                     int64_t segment, float* partial, void* scratch) noexcept {
  if (EnoughForTiles(args, rows)) {
    RunSegment<V512, TileAttention<Tiles>::template Pages>(args, run, rows, kv_head, segment,
                                                           partial, scratch);
  } else {
    const AttentionKernels& vectors = kServeAvx512.attention[static_cast<int>(KvElement::kBF16)];
    vectors.segment(args, run, rows, kv_head, segment, partial, scratch);
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
  t.attention_tile = AttentionFromRows<Tiles>;
  t.attention_segment = SegmentFromRows<Tiles>;
  t.train_gemm = TileProduct<Tiles>::Gemm;
  t.train_outer = TileProduct<Tiles>::Outer;
  return t;
}

}  // namespace
}  // namespace bakestone
